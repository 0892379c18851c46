"""Writing files so that the old one or the new one is there whole, never half of either."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffviz.errors import InputError


def check_writable(path: str | Path) -> Path:
    """The path, once it is certain that a file can be made there; so ask before long work.

    Raises:
        InputError: a folder is missing, not writable, or stands where the file should.
    """
    path = Path(path)
    folder = path.parent
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot write there: {error.strerror}") from None
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends well.

    The content is flushed to disk before the rename. On any failure the temporary file is removed
    and an old file stays as it was.

    Raises:
        InputError: the file cannot be written (no folder, no permission, no space).
    """
    path = check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: not written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
