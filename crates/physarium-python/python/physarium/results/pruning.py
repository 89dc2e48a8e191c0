"""What a checkpoint contains, what a run would do, and what it did. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .._json import Json
from .shared import Encoded, Model, PrunedWeights, Share, Skipped, Source, Target


@dataclass(frozen=True, kw_only=True)
class ShardSize(Json):
    """A file of weights."""

    name: str
    size_bytes: int
    tensors: int


@dataclass(frozen=True, kw_only=True)
class DtypeSum(Json):
    """The tensors of one element type."""

    dtype: str
    tensors: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class ProjectionSum(Json):
    """The targets of one projection."""

    projection: str
    tensors: int
    elements: int
    of_target: Share
    of_model: Share


@dataclass(frozen=True, kw_only=True)
class InspectedTensor(Json):
    """A target."""

    name: str
    role: str
    layer: int | None
    dtype: str
    shape: tuple[int, ...]
    elements: int
    shard: str
    matrices: int = 1


@dataclass(frozen=True, kw_only=True)
class Inspection(Json):
    """What a checkpoint contains, of :func:`physarium.inspect`."""

    schema: str
    shards: tuple[ShardSize, ...]
    model: Model
    target: Target
    dtypes: tuple[DtypeSum, ...]
    projections: tuple[ProjectionSum, ...]
    tensors: tuple[InspectedTensor, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    encoded: tuple[Encoded, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, kw_only=True)
class Streams(Json):
    """Residual streams of an activation-aware run, and where they are kept."""

    bytes: int
    kept_in: Literal["memory", "file"]


@dataclass(frozen=True, kw_only=True)
class DryRun(Json):
    """What a run would do, of :func:`physarium.dry_run`."""

    schema: str
    recipe: dict[str, Any]
    model: Model
    target: Target
    output_bytes: int
    free_bytes_needed: int
    free_bytes: int | None
    resident_bytes: int
    memory_limit_bytes: int | None
    streams: Streams | None
    pruned_inputs: Literal["kept", "computed twice"] | None
    workers: int
    seconds: float | None
    rewrites_readme: bool
    replaces: bool
    unfinished: Literal["resumed", "discarded"] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Processed(Json):
    """Tensors and elements that a run visited."""

    tensors: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class Shards(Json):
    """Shards that a run wrote, and those that an interrupted run had written."""

    written: int
    resumed: int


@dataclass(frozen=True, kw_only=True)
class Pruned(Json):
    """What a run did, of :func:`physarium.prune` and :func:`physarium.finish`."""

    schema: str
    out: str
    recipe: dict[str, Any]
    model: Model
    target: Target
    processed: Processed
    pruned: PrunedWeights
    already_zero: int
    refitted: int
    dead_inputs: int
    output_error: float | None
    non_finite: int
    shards: Shards
    output_bytes: int
    seconds: float
    peak_rss_bytes: int | None
    notes: tuple[str, ...] = ()
