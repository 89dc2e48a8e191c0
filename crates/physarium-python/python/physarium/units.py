"""The commands for a run on several machines (docs/UNITS.md): a plan, its units, and the output.

They take the options of their commands, as in :mod:`physarium.commands`.
"""

from __future__ import annotations

from ._call import run
from .options import Allocation, Arithmetic, Effort, Globs, Method, Path, Scope
from .progress import Listener
from .results import Planned, Pruned, UnitRun, WorkerRun


def plan(
    model: Path,
    out: Path,
    *,
    plan: Path,
    revision: str | None = None,
    method: Method | None = None,
    sparsity: float | None = None,
    pattern: str | None = None,
    price: float | None = None,
    allocation: Allocation | None = None,
    effort: Effort | None = None,
    scope: Scope | None = None,
    allow_nonfinite: bool = False,
    recipe: Path | None = None,
    target: Globs | None = None,
    skip: Globs | None = None,
    calibration: Path | None = None,
    calibration_tokens: int | None = None,
    window: int | None = None,
    seed: int | None = None,
    arithmetic: Arithmetic | None = None,
    block_size: int | None = None,
    iterations: int | None = None,
    beta: float | None = None,
    inflow: float | None = None,
    strict: bool = False,
    force: bool = False,
    follow_links: bool = False,
    card: bool = False,
    threads: int | None = None,
    progress: Listener | None = None,
) -> Planned:
    """Writes a run into ``out`` as a list of units of work to the file ``plan``.

    With ``force``, a finished output that is there now is replaced when the plan's is published. Each unit is
    planned for ``threads`` processors, by default all of this machine.
    """
    return Planned.from_dict(run("plan", locals(), ("model",))[1])


def unit(
    plan: Path,
    id: str,
    *,
    threads: int | None = None,
    memory: str | int | None = None,
    progress: Listener | None = None,
) -> UnitRun:
    """Runs a unit of a plan whose needs are done. A unit that is done is not run again."""
    return UnitRun.from_dict(run("unit", locals(), ("plan", "id"))[1])


def work(
    plan: Path,
    share: tuple[int, int] = (0, 1),
    *,
    take_over_after: int | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    progress: Listener | None = None,
) -> WorkerRun:
    """Runs the units of a share ``(i, n)``, which are every n-th from number i on, until all units of the plan are done.

    After ``take_over_after`` seconds without a new result it also runs units of other shares.
    """
    options = locals()
    index, count = options.pop("share")
    return WorkerRun.from_dict(run("unit", {**options, "worker": f"{index}/{count}"}, ("plan",))[1])


def finish(
    plan: Path,
    *,
    wait: bool = False,
    force: bool = False,
    restart: bool = False,
    threads: int | None = None,
    progress: Listener | None = None,
) -> Pruned:
    """Publishes the output of a plan whose units are done; with ``wait``, once they are."""
    return Pruned.from_dict(run("finish", locals(), ("plan",))[1])
