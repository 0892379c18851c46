"""Writing files so that the old one or the new one is there whole, never half of either.

And reading them with as little trust: what is not a regular file, or too large, is not opened,
and a sealed file carries the SHA-256 of its content, so that a cut or a flipped bit is noticed
before anything is parsed. A seal is a checksum and no signature: whoever can write can seal.
"""

import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffviz.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SEAL = b"diffviz-sha256:"
FRESH = 1.0
"""Seconds within which a new file may not have been locked by its writer yet."""


def check_writable(path: str | Path) -> Path:
    """The path, once it is certain that a file can be made there; so ask before long work.

    A link is followed: the file that it names is the one replaced.

    Raises:
        InputError: a folder is missing or not writable, or what stands there is not a file that
            may be written. A rename would put a file in the place of a device, for everybody.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"{path!r:.80}; allowed is the name of a file")
    if not str(path):
        raise InputError("the name of the file to write is empty")
    try:
        target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
        kind = _kind(target)
        if kind not in (None, "a file"):
            raise InputError(f"{path}: is {kind}; give the name of a file")
        if not target.parent.is_dir():
            raise InputError(f"{path}: the folder {target.parent} does not exist")
        if kind is not None and not os.access(target, os.W_OK):
            raise InputError(f"{path}: is read-only")
        _kind(_temporary(target))  # the longest name that writing will use
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a name with a NUL byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot write there: {reason}") from None
    return target


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file ``path`` until the block ends; it goes with a killed process.

    The kernel keeps the lock, so processes of other containers see it too. Where files cannot be
    locked nobody is kept out.

    Raises:
        InputError: somebody else holds it: ``refusal``.
    """
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            if not _lock(handle):
                raise InputError(refusal)
            if _is_at(handle, path):  # not removed between opening and locking
                yield
                path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Whether this open file is now ours alone."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def check_apart(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Every output can be written and is a file of its own, so that no input is lost to it.

    Raises:
        InputError: as ``check_writable``, or two of the names are one file.
    """
    taken = [path for path in inputs if path is not None and os.path.lexists(path)]
    for path in outputs:
        if path is None:
            continue
        check_writable(path)
        for other in taken:
            if os.path.realpath(other) == os.path.realpath(path):
                raise InputError(f"{path}: named twice, and one would replace the other")
        taken.append(path)


def read_bytes(
    path: str | Path, limit: int, allowed: str, error: type[InputError] = InputError
) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    It is looked at before it is opened: opening a FIFO waits for ever, and a device has no end.

    Raises:
        InputError: or the given kind of it: nothing there, not a file, empty, or too large.
            ``allowed`` says what would be right.
    """
    if not isinstance(path, str | Path):
        raise error(f"{path!r:.80}; allowed is the name of a file")
    try:
        kind = _kind(Path(path)) if str(path) else None
        if kind is None:
            raise error(f"{path}: no such file; {allowed}")
        if kind != "a file":
            raise error(f"{path}: is {kind}; {allowed}")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise error(f"{path}: {size >> 20} MiB; allowed are {limit >> 20} MiB")
            content = file.read(limit + 1)
    except (OSError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path}: cannot be read: {reason}; {allowed}") from None
    if not content:
        raise error(f"{path}: empty; {allowed}")
    return content


def seal(content: bytes) -> bytes:
    """What stands after the content in a sealed file, its SHA-256."""
    return SEAL + hashlib.sha256(content).digest()


def unseal(sealed: bytes) -> bytes | None:
    """The content without its seal; None if there is none, or only a part of it is here.

    Raises:
        InputError: the content is not what was sealed.
    """
    content, end = sealed[: -len(SEAL) - 32], sealed[-len(SEAL) - 32 :]
    if not end.startswith(SEAL):
        return None
    if end != seal(content):
        raise InputError("changed since it was written; its digest differs")
    return content


def _kind(path: Path) -> str | None:
    """What is at the path in words; None where nothing is."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends well.

    The content is flushed to disk before the rename. On any failure the temporary file is removed
    and an old file stays as it was.

    Raises:
        InputError: the file cannot be written (no folder, no permission, no space).
    """
    path = check_writable(path)
    _sweep(path)
    temporary, handle = _temporary(path), None
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        _lock(handle)  # while its writer lives, so that nobody sweeps it away
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: not written: {error.strerror or error}") from error
    finally:
        if handle is not None:
            os.close(handle)
        temporary.unlink(missing_ok=True)


@contextmanager
def sealing(path: str | Path) -> Iterator[Path]:
    """As `replacing`; what the block has written is sealed before it takes its place."""
    with replacing(path) as temporary:
        yield temporary
        with open(temporary, "rb+") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(SEAL + digest)


def _temporary(path: Path) -> Path:
    """A name that no other writer has: threads share a process, containers its number."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and need not be
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    if fcntl is None:
        return
    name, suffix = re.escape(path.name), re.escape(path.suffix)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*-*{glob.escape(path.suffix)}"):
        # A writer that has made its file and not locked it yet is not a killed one.
        if not re.fullmatch(rf"\.{name}\.\d+-[0-9a-f]{{8}}{suffix}", stale.name):
            continue
        with suppress(OSError):  # gone meanwhile, or not ours
            if time.time() - stale.stat().st_mtime < FRESH:
                continue
            handle = os.open(stale, os.O_RDWR)
            try:
                if _lock(handle):
                    stale.unlink(missing_ok=True)
            finally:
                os.close(handle)
