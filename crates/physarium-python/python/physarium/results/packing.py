"""Packed and unpacked checkpoints. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass

from .._json import Json


@dataclass(frozen=True, kw_only=True)
class FormSizes(Json):
    """Targets that are stored in one form, and their sizes."""

    tensors: int
    dense_bytes: int
    packed_bytes: int


@dataclass(frozen=True, kw_only=True)
class PackedProjections(Json):
    """Targets by the form that they are stored in."""

    mask: FormSizes
    groups: FormSizes
    dense: FormSizes


@dataclass(frozen=True, kw_only=True)
class LeftOut(Json):
    """A file that was not packed."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NegativeZeros(Json):
    """Weights that are -0.0, and take the place of values."""

    tensors: int
    elements: int


@dataclass(frozen=True, kw_only=True)
class Packed(Json):
    """A packed file, of :func:`physarium.pack`."""

    schema: str
    out: str
    input_bytes: int
    output_bytes: int
    projections: PackedProjections
    left_out: tuple[LeftOut, ...]
    negative_zeros: NegativeZeros | None = None


@dataclass(frozen=True, kw_only=True)
class Unpacked(Json):
    """An unpacked directory, of :func:`physarium.unpack`."""

    schema: str
    out: str
    files: int
    bytes: int
