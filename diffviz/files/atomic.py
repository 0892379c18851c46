"""Writing files so that the old one or the new one is there whole, never half of either.

A file is written in a folder of its own beside its place and then renamed. The writer holds a lock
on that folder, which ends with its process, in any container. So a folder without a lock was left
by a process that was killed, and the next writer removes it.

What is not a regular file, or too large, is not opened. A sealed file ends with the SHA-256 of
its content, so a cut or a flipped bit is noticed before anything is parsed. A seal is a checksum
and no signature: whoever can write can seal.
"""

import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffviz.errors import InputError

if sys.platform != "win32":
    import fcntl

SEAL = b"diffviz-sha256:"
WORKPLACE = ".diffviz-"


def check_writable(path: str | Path) -> Path:
    """The path, once it is certain that a file can be made there. To be called before long work.

    A link is followed: the file that it names is the one replaced.

    Raises:
        InputError: a folder is missing or not writable, or what stands there is not a file that
            may be written. Renaming a file onto a device would replace it for everybody.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"the file to write is {path!r:.80}; allowed is a path")
    if not str(path):
        raise InputError("the name of the file to write is empty")
    if str(path).endswith(("/", os.sep)):
        raise InputError(f"{path}: is the name of a folder; give the name of a file")
    try:
        target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
        kind = _kind(target)
        if kind not in (None, "a file"):
            raise InputError(f"{path}: is {kind}; give the name of a file")
        if not target.parent.is_dir():
            raise InputError(f"{path}: the folder {target.parent} does not exist")
        if kind is not None and not os.access(target, os.W_OK):
            raise InputError(f"{path}: is read-only")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a name with a NUL byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot write there: {reason}") from None
    return target


def check_apart(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Every output can be written and is a file of its own, so that no input is overwritten.

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
        raise error(f"the file to read is {path!r:.80}; {allowed}")
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
    """A temporary file that becomes ``path`` when the block ends well.

    The content is flushed to disk before the rename. On any failure the temporary file is removed
    and an old file stays as it was.

    Raises:
        InputError: the file cannot be written (no folder, no permission, no space).
    """
    target = check_writable(path)
    try:
        with _workplace(target.parent) as folder:
            temporary = folder / target.name
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
            _flush_folder(target.parent)
    except OSError as error:
        raise InputError(f"{path}: not written: {error.strerror or error}") from error


@contextmanager
def sealing(path: str | Path) -> Iterator[Path]:
    """As `replacing`; what the block has written is sealed before it takes its place."""
    with replacing(path) as temporary:
        yield temporary
        with open(temporary, "rb+") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(SEAL + digest)


@contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Hold ``path`` for one writer: no other process or thread gets it while the block lasts.

    Raises:
        InputError: another one holds it.
    """
    target = check_writable(path)
    folder = target.with_name(f".{target.name}.writer")
    try:
        folder.mkdir(exist_ok=True)
        handle = _lock(folder)
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror or error}") from None
    if handle is None:
        raise InputError(f"{path}: is being written by another recording; wait, or name another")
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A new locked folder in ``parent``, removed with all that is in it."""
    for stale in parent.glob(f"{WORKPLACE}*"):
        with suppress(OSError):  # no locks on this file system, or it is gone
            handle = _lock(stale)
            if handle is not None:
                shutil.rmtree(stale, ignore_errors=True)
                os.close(handle)
    handle = None
    while handle is None:  # another writer may take the folder for a stale one before it is locked
        folder = parent / f"{WORKPLACE}{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            handle = _lock(folder)
        except FileNotFoundError:
            continue
        except OSError:
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that holds the lock of ``folder``; None where another has it.

    Raises:
        OSError: there is no such folder, or its file system has no locks.
    """
    if sys.platform == "win32":
        raise OSError("no locks of folders")
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)  # it may have been removed before the lock was there
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and need not be
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
