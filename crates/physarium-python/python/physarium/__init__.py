"""physarium prunes language models with a Physarum-inspired algorithm and verifies the result.

The functions are the program's commands; ``python -m physarium`` is the program. docs/PYTHON.md is the guide.
:mod:`physarium.flow` prunes weights in memory, :mod:`physarium.progress` shows how far a call is.
"""

from .commands import (
    audit,
    evaluate,
    evaluate_choices,
    inspect,
    pack,
    plan,
    prune,
    unpack,
    verify,
)
from .errors import (
    Error,
    InputChangedError,
    InputError,
    Interrupted,
    OutputError,
    Panic,
    ResourceError,
    UnsupportedError,
    UsageError,
)

__all__ = [
    "Error",
    "InputChangedError",
    "InputError",
    "Interrupted",
    "OutputError",
    "Panic",
    "ResourceError",
    "UnsupportedError",
    "UsageError",
    "audit",
    "evaluate",
    "evaluate_choices",
    "inspect",
    "pack",
    "plan",
    "prune",
    "unpack",
    "verify",
]
