"""What several results have. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass

from .._json import Json


@dataclass(frozen=True, kw_only=True)
class Share(Json):
    """A part of a whole that has a name: ``share`` = ``part`` ÷ ``whole``, ``None`` for 0 of 0."""

    part: int
    whole: int
    of: str
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Source(Json):
    """A model's place: on the ``hub`` at a ``commit``, or its address in a ``store``.

    ``revision`` is what was asked for, ``None`` if the path of the snapshot was given.
    """

    hub: str | None = None
    commit: str | None = None
    revision: str | None = None
    store: str | None = None


@dataclass(frozen=True, kw_only=True)
class Model(Json):
    """The whole checkpoint."""

    tensors: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class Target(Json):
    """What is or would be pruned."""

    tensors: int
    elements: int
    of_model: Share


@dataclass(frozen=True, kw_only=True)
class Skipped(Json):
    """A tensor that is no target."""

    name: str
    elements: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Encoded(Json):
    """Projections that are not stored as plain weights."""

    format: str
    projections: int
    names: tuple[str, ...]
    example: str


@dataclass(frozen=True, kw_only=True)
class PrunedWeights(Json):
    """Weights that are zero and were not."""

    elements: int
    of_target: Share
    of_model: Share
