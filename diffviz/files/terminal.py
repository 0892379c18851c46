"""Standard output and error that do not raise on a closed pipe or a full disk."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def safe_streams() -> Iterator[None]:
    """Within the block no ``print`` and no progress bar raises because of its stream."""
    given = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_safe, given)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = given


def printable(line: str) -> str:
    """The text with escapes for what would steer a terminal or reverse the order of letters."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in line
    )


def _safe(stream: TextIO | None) -> Any:
    if stream is None:  # closed by the caller
        stream = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):  # for encodings without the letters
        stream.reconfigure(errors="backslashreplace")
    return SafeStream(stream)


class SafeStream:
    """A stream that is silent once it cannot be written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` if possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        self._try(self._stream.flush)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except (OSError, ValueError):
            # Python would complain at its end of what is still buffered.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
