"""The one family of errors that mean "the input was wrong", not "the program is".

Each carries one clear line that names what was given and what is allowed. The command line turns
them into that line and exit status 2.
"""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray


class InputError(ValueError):
    """A value from outside is not usable: one line that says what was given and what is allowed.

    It is a ``ValueError``. The command line prints the line and ends with status 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))


def said(error: BaseException) -> str:
    """The first line of what an error of other people's code says, of bounded length."""
    try:
        lines = str(error).splitlines()
    except Exception:  # ``__str__`` is their code as well
        lines = []
    return lines[0][:200] if lines else "no message"


def shown(value: object) -> str:
    """A value of any kind in at most 80 characters."""
    try:
        return f"{value!r:.80}"
    except Exception:  # other people's code
        return f"a {type(value).__name__}"


def writable(text: str) -> bool:
    """Whether UTF-8 can write the text; without NUL."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def check_integer(name: str, value: object, low: int, high: int) -> int:
    """The integer ``value``; InputError for anything but ``low``…``high``."""
    if isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high:
        return int(value)
    raise InputError(f"{name} is {shown(value)}; allowed are the integers {low}…{high}")


def check_number(name: str, value: object, low: float, high: float) -> float:
    """The number ``value``; InputError for anything but ``low`` to ``high``, both included."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if real and low <= float(value) <= high:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    raise InputError(f"{name} is {shown(value)}; allowed is {low:g} to {high:g}")


def check_names(name: str, value: object) -> tuple[str, ...]:
    """The texts ``value``; InputError for anything but a sequence of texts."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if listed and all(isinstance(one, str) for one in value):  # type: ignore[attr-defined]
        return tuple(value)  # type: ignore[arg-type]
    raise InputError(f"{name} is {shown(value)}; allowed is a tuple of texts")


def check_array(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """A copy in float64; InputError for anything but real numbers."""
    try:
        given = np.asarray(values)
    except ValueError:  # rows of different lengths
        given = np.asarray(None)
    if given.dtype.kind not in "fiub":
        raise InputError(f"{name} is {shown(values)}; allowed are real numbers")
    return given.astype(np.float64)


class CheckpointError(InputError):
    """A file of weights cannot be used: not such a file, damaged, or of another network.

    No code in the file has been run.
    """


class NonfiniteError(InputError):
    """A value in a sampler stopped being finite. ``run`` holds what was recorded before that."""

    def __init__(self, message: str, run: object = None) -> None:
        super().__init__(message)
        self.run = run


class RunFileError(InputError):
    """A file does not hold a whole run: another file, a part of one, or changed since written."""
