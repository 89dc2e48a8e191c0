"""Audits and verifications. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .._json import Json, not_in_json
from .shared import Encoded, Model, PrunedWeights, Share, Skipped, Source, Target


@dataclass(frozen=True, kw_only=True)
class Identity(Json):
    """Numbers that are computed in two ways, and must be equal."""

    says: str
    left: int
    right: int
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Counted(Json):
    """What was processed, and by what that is known."""

    basis: Literal["bytes", "journal"]
    tensors: int
    elements: int
    of_target: Share
    of_model: Share


@dataclass(frozen=True, kw_only=True)
class Count(Json):
    """Weights of the targets."""

    elements: int
    of_target: Share


@dataclass(frozen=True, kw_only=True)
class Untouched(Json):
    """Tensors that are no targets."""

    tensors: int
    elements: int
    of_model: Share
    compared: bool
    differing: tuple[str, ...]
    uncompared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfModel(Json):
    """A count in the whole model."""

    elements: int
    of_model: Share


@dataclass(frozen=True, kw_only=True)
class Outside(Json):
    """Weights of tensors that are no targets."""

    zero: OfModel
    pruned: OfModel | None
    already_zero: OfModel | None


@dataclass(frozen=True, kw_only=True)
class TileCoverage(Json):
    """Tiles that there are and that were visited."""

    block_size: int
    expected: int
    visited: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class AuditedProjection(Json):
    """The targets of one projection."""

    projection: str
    tensors: int
    elements: int
    pruned: int | None
    of_projection: Share | None
    sparsity_min: float
    sparsity_mean: float
    sparsity_max: float


@dataclass(frozen=True, kw_only=True)
class TileMap(Json):
    """Zeros of each tile, as base64 of unsigned 32-bit little-endian integers."""

    shape: tuple[int, ...]
    edge: int
    zeros: str


@dataclass(frozen=True, kw_only=True)
class AuditedMatrix(Json):
    """A matrix of a fused or stacked tensor."""

    map: str
    elements: int
    zero: int
    pruned: int | None
    expert: int | None = None
    tile_map: TileMap | None = None


@dataclass(frozen=True, kw_only=True)
class AuditedTensor(Json):
    """A target."""

    name: str
    role: str
    layer: int | None
    dtype: str
    shape: tuple[int, ...]
    elements: int
    processed: int | None
    zero: int
    pruned: int | None
    already_zero: int | None
    no_longer_zero: int | None
    sign_bit_zero: int | None
    changed: int | None
    output_error: float | None = None
    error_before_update: float | None = None
    tile_map: TileMap | None = None
    matrices: tuple[AuditedMatrix, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement(Json):
    """The verdict on a claim."""

    id: str
    source: str
    sentence: str
    verdict: Literal["correct", "denominator", "wrong", "cannot be judged"]
    claimed: str
    measured: tuple[Share, ...]
    true_of: tuple[str, ...]
    should_say: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class MagnifiedTile(Json):
    """A tile weight by weight; `alive` is base64 of bits."""

    tensor: str
    projection: str
    at: tuple[int, ...]
    shape: tuple[int, ...]
    alive: str
    expert: int | None = None


@dataclass(frozen=True, kw_only=True)
class ShardDigests(Json):
    """The digests of a shard before and after."""

    name: str
    size_bytes: int
    input_sha256: str
    output_sha256: str


@dataclass(frozen=True, kw_only=True)
class Provenance(Json):
    """What was audited, and how it was made."""

    audited_by: str
    checkpoint: str
    against: str | None = None
    pruned_by: str | None = None
    recipe: dict[str, Any] | None = None
    shards: tuple[ShardDigests, ...] = ()
    source: Source | None = None
    against_source: Source | None = None


@dataclass(frozen=True, kw_only=True)
class Audit(Json):
    """A recount of zeros, of :func:`physarium.audit`."""

    schema: str
    basis: Literal["bytes", "journal"]
    base: Literal["original", "journal", "none"]
    denominator_correct: bool
    identities: tuple[Identity, ...]
    model: Model
    target: Target
    processed: Counted | None
    zero: Count
    pruned: PrunedWeights | None
    already_zero: Count | None
    zero_before: Count | None
    no_longer_zero: Count | None
    sign_bit_zero: Count | None
    changed: Count | None
    untouched: Untouched
    tiles: TileCoverage | None
    projections: tuple[AuditedProjection, ...]
    tensors: tuple[AuditedTensor, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    claims: tuple[Judgement, ...]
    unrelated: str | None = None
    original: Model | None = None
    outside: Outside | None = None
    pruned_by_conversion: Count | None = None
    encoded: tuple[Encoded, ...] = ()
    magnified: tuple[MagnifiedTile, ...] = ()
    provenance: Provenance | None = None
    exit_code: int = not_in_json()
    """The program's exit code: 0 all true, 1 something is false, 2 nothing can be counted or judged. No key of the JSON."""


@dataclass(frozen=True, kw_only=True)
class Finding(Json):
    """A difference."""

    file: str
    tensor: str | None
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification(Json):
    """Whether only pruned or updated weights differ, of :func:`physarium.verify`."""

    schema: str
    verified: bool
    files: int
    tensors: int
    bytes: int
    pruned: int
    refitted: int
    rewritten: tuple[str, ...]
    unrelated: str | None
    findings: tuple[Finding, ...]
