"""physarium prunes language models with a Physarum-inspired algorithm and verifies the result.

The functions are the program's commands; ``python -m physarium`` is the program. docs/PYTHON.md is the guide.
:mod:`physarium.flow` prunes weights in memory, :mod:`physarium.progress` shows how far a call is,
:mod:`physarium.ray` runs the units of a plan on a Ray cluster, :mod:`physarium.hub` downloads models.
"""

from .commands import (
    audit,
    dry_run,
    evaluate,
    evaluate_choices,
    inspect,
    pack,
    prune,
    score_parts,
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
from .units import finish, plan, unit, work

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
    "dry_run",
    "evaluate",
    "evaluate_choices",
    "finish",
    "inspect",
    "pack",
    "plan",
    "prune",
    "score_parts",
    "unit",
    "unpack",
    "verify",
    "work",
]
