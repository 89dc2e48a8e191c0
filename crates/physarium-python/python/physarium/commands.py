"""The program's commands as functions.

Options have the names of the command line, with ``_`` for ``-``. An option that is ``None`` is not given. One that would have
no effect, or does not fit, raises :class:`physarium.UsageError`. A ``model`` is a directory, or the id of a model in the hub cache
(:func:`physarium.hub.download`), then perhaps with a ``revision``. :mod:`physarium.units` has the commands for several machines.
"""

from __future__ import annotations

import dataclasses

from ._call import run
from .options import (
    Allocation,
    Arithmetic,
    BosPlace,
    Effort,
    EvaluationArithmetic,
    Globs,
    Method,
    Path,
    Scope,
)
from .progress import Listener
from .results import (
    Audit,
    Choices,
    DryRun,
    Evaluation,
    Inspection,
    Packed,
    PartsScored,
    Pruned,
    Unpacked,
    Verification,
)


def inspect(
    model: Path,
    *,
    revision: str | None = None,
    target: Globs | None = None,
    skip: Globs | None = None,
) -> Inspection:
    """Lists tensors, targets, and why other tensors are skipped; reads headers only."""
    return Inspection.from_dict(run("inspect", locals())[1])


def prune(
    model: Path,
    out: Path,
    *,
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
    restart: bool = False,
    follow_links: bool = False,
    card: bool = False,
    threads: int | None = None,
    memory: str | int | None = None,
    progress: Listener | None = None,
) -> Pruned:
    """Prunes a checkpoint into the new directory ``out``, which appears only once it is complete.

    ``memory`` is a size such as ``"8GB"``, or bytes. An interrupted run is resumed by the same call.
    """
    return Pruned.from_dict(run("prune", locals())[1])


def dry_run(
    model: Path,
    out: Path,
    *,
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
    restart: bool = False,
    follow_links: bool = False,
    card: bool = False,
    threads: int | None = None,
    memory: str | int | None = None,
) -> DryRun:
    """What :func:`prune` would do with these options, its output size, memory and time; writes nothing."""
    return DryRun.from_dict(run("prune", {**locals(), "dry_run": True})[1])


def audit(
    dir: Path | None = None,
    *,
    revision: str | None = None,
    against: Path | None = None,
    from_journal: Path | None = None,
    from_report: Path | None = None,
    claims: Path | None = None,
    report: Path | None = None,
    target: Globs | None = None,
    skip: Globs | None = None,
    threads: int | None = None,
    progress: Listener | None = None,
) -> Audit:
    """Recounts zeros from the bytes, independently of the pruner, and judges claims.

    What is false is a result, not an exception: see ``denominator_correct``, ``claims`` and ``exit_code``.
    """
    exit_code, result = run("audit", locals())
    return dataclasses.replace(Audit.from_dict(result), exit_code=exit_code)


def verify(
    dir: Path, *, against: Path, revision: str | None = None, progress: Listener | None = None
) -> Verification:
    """Proves that an output differs from its input only in pruned or updated weights of targets.

    A difference is a result, not an exception: see ``verified`` and ``findings``.
    """
    return Verification.from_dict(run("verify", locals())[1])


def evaluate(
    model: Path,
    *,
    revision: str | None = None,
    text: Path,
    choices: Path | None = None,
    against: Path | None = None,
    field: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    limit: int | None = None,
    bos: BosPlace | None = None,
    parts: Path | None = None,
    per_token: Path | None = None,
    per_item: Path | None = None,
    threads: int | None = None,
    arithmetic: EvaluationArithmetic | None = None,
    progress: Listener | None = None,
) -> Evaluation:
    """Measures perplexity on a text, and with ``choices`` also accuracy on multiple-choice items.

    With ``parts``, the scores of the text are kept in that directory, and the same call goes on from there.
    """
    return Evaluation.from_dict(run("eval", locals())[1])


def score_parts(
    model: Path,
    share: tuple[int, int] = (0, 1),
    *,
    revision: str | None = None,
    text: Path,
    parts: Path,
    against: Path | None = None,
    field: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    limit: int | None = None,
    bos: BosPlace | None = None,
    threads: int | None = None,
    arithmetic: EvaluationArithmetic | None = None,
    progress: Listener | None = None,
) -> PartsScored:
    """Scores the parts of a share ``(i, n)`` of a text, which are every n-th from number i on, and keeps them in ``parts``.

    Once all shares are scored, :func:`evaluate` with the same options gives the result.
    """
    options = locals()
    index, count = options.pop("share")
    return PartsScored.from_dict(run("eval", {**options, "worker": f"{index}/{count}"})[1])


def evaluate_choices(
    model: Path,
    *,
    revision: str | None = None,
    choices: Path,
    against: Path | None = None,
    per_item: Path | None = None,
    threads: int | None = None,
    arithmetic: EvaluationArithmetic | None = None,
    progress: Listener | None = None,
) -> Choices:
    """Measures accuracy on multiple-choice items."""
    return Choices.from_dict(run("eval", locals())[1])


def pack(
    dir: Path,
    out: Path,
    *,
    revision: str | None = None,
    force: bool = False,
    follow_links: bool = False,
    progress: Listener | None = None,
) -> Packed:
    """Packs a checkpoint into one file without zeros."""
    return Packed.from_dict(run("pack", locals())[1])


def unpack(file: Path, out: Path, *, progress: Listener | None = None) -> Unpacked:
    """Restores the directory of a packed file, byte for byte."""
    return Unpacked.from_dict(run("unpack", locals())[1])
