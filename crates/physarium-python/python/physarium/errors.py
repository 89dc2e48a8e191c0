"""Exceptions: one class for each kind of error, with its parts as attributes.

The text of an exception is the program's whole message. ``file``, ``tensor``, ``expected`` and ``found`` are ``None`` where
an error has no such part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Error(Exception):
    """An error of physarium. Subclasses say its kind; an error without a kind is of this class."""

    file: Path | None
    """The file or directory."""
    tensor: str | None
    """The tensor; of :func:`physarium.flow.prune_matrix`, the argument."""
    expected: str | None
    """What was expected."""
    found: str | None
    """What was found."""

    def __init__(
        self,
        message: str,
        *,
        file: Path | None = None,
        tensor: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message)
        self.file = file
        self.tensor = tensor
        self.expected = expected
        self.found = found


class UsageError(Error, ValueError):
    """Options that cannot be combined, are out of range, or are invalid for this checkpoint."""


class InputError(Error):
    """A checkpoint, text or matrix that is malformed, incomplete or damaged."""


class OutputError(Error):
    """An output path, or what is at it, that cannot be used."""


class ResourceError(Error):
    """The machine refused: I/O error, no space, no memory, no threads, no such arithmetic."""


class UnsupportedError(Error):
    """A checkpoint that is well-formed, but of a kind that physarium does not support."""


class InputChangedError(Error):
    """The input changed during the run."""


class Interrupted(Error):
    """What became of a run that was stopped: the ``__cause__`` of the exception that stopped it.

    Of :func:`physarium.prune`, ``file`` is the directory with the finished part; the same call resumes the run.
    """

    result: dict[str, Any] | None = None
    """The part of the result that there was, as ``to_dict`` would give it; ``None`` if there was none."""


class Panic(Error):
    """A defect of physarium itself."""
