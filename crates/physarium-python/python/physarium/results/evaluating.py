"""Perplexity and accuracy. docs/FORMATS.md says what each field means."""

from __future__ import annotations

from dataclasses import dataclass

from .._json import Json
from ..options import BosPlace
from .shared import Share


@dataclass(frozen=True, kw_only=True)
class TextUsed(Json):
    """The text of an evaluation."""

    file: str
    sha256: str
    bytes: int
    field: str | None


@dataclass(frozen=True, kw_only=True)
class Bos(Json):
    """The token for the beginning of a text, if one is added."""

    added: bool
    place: BosPlace
    said_by: str
    token: str | None


@dataclass(frozen=True, kw_only=True)
class Protocol(Json):
    """Everything that a perplexity depends on."""

    text: TextUsed
    tokenizer_sha256: str
    bos: Bos
    window: int
    stride: int
    limit: int | None
    tail_rule: str
    tail_tokens: int
    scored: str
    weights: str
    arithmetic: str
    instructions: str
    threads: int
    version: str


@dataclass(frozen=True, kw_only=True)
class Against(Json):
    """The other model on the same text."""

    perplexity: float
    ratio: float
    ratio_stderr: float | None
    kl_nats: float
    kl_stderr: float | None
    top1_agreement: float
    top1_stderr: float | None


@dataclass(frozen=True, kw_only=True)
class Accuracy(Share):
    """The right items as a share, with its standard error."""

    stderr: float | None


@dataclass(frozen=True, kw_only=True)
class ComparedAccuracy(Accuracy):
    """The other model's accuracy, and where the models differ."""

    changed: int
    gained: int
    lost: int
    difference: float
    difference_stderr: float | None


@dataclass(frozen=True, kw_only=True)
class ChoicesAgainst(Json):
    """The other model on the same items."""

    accuracy: ComparedAccuracy
    accuracy_normalised: ComparedAccuracy


@dataclass(frozen=True, kw_only=True)
class ChoicesProtocol(Json):
    """Everything that an accuracy depends on."""

    file: str
    sha256: str
    items: int
    tokenizer_sha256: str
    bos: Bos
    empty_context: str | None
    delimiter: str
    positions: int | None
    normalised_by: str
    weights: str
    arithmetic: str
    instructions: str
    threads: int
    version: str


@dataclass(frozen=True, kw_only=True)
class Choices(Json):
    """Accuracy on multiple-choice items, of :func:`physarium.evaluate_choices`."""

    schema: str
    accuracy: Accuracy
    accuracy_normalised: Accuracy
    items: int
    cut_contexts: int
    partial: bool
    protocol: ChoicesProtocol
    seconds: float
    tokens_per_second: float
    peak_rss_bytes: int | None
    against: ChoicesAgainst | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation(Json):
    """Perplexity on a text, of :func:`physarium.evaluate`."""

    schema: str
    perplexity: float
    mean_nll_nats: float
    bits_per_byte: float | None
    tokens_scored: int
    windows: int
    partial: bool
    protocol: Protocol
    seconds: float
    tokens_per_second: float
    peak_rss_bytes: int | None
    against: Against | None = None
    notes: tuple[str, ...] = ()
    choices: Choices | None = None
