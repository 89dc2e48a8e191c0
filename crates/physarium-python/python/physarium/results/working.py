"""Units of work. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass

from .._json import Json


@dataclass(frozen=True, kw_only=True)
class Planned(Json):
    """A plan of units of work, of :func:`physarium.plan`."""

    schema: str
    plan: str
    units: int
    steps: int
    seconds: float
    memory_bytes: int
    job: str | None


@dataclass(frozen=True, kw_only=True)
class PartsScored(Json):
    """What :func:`physarium.score_parts` did: it scored ``scored`` parts, ``kept`` ones of its share were scored before.

    The whole evaluation has ``of`` parts.
    """

    schema: str
    scored: int
    kept: int
    of: int
    peak_rss_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class UnitRun(Json):
    """A unit that is done, of :func:`physarium.unit`."""

    schema: str
    unit: str
    ended: str
    seconds: float
    peak_rss_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class WorkerRun(Json):
    """What a worker did, of :func:`physarium.work`: it ran ``ran`` of the ``units``, which are all done."""

    schema: str
    units: int
    ran: int
    seconds: float
    peak_rss_bytes: int | None
