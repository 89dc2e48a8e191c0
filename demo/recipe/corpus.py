"""The texts of the demo and their tokens, for train.py and measure.py.

In:   the seeds and sizes below; a tokenizer.
Out:  the training documents, the held-out and the calibration stories; windows of token ids.
Time: about a second for the texts, about ten seconds to encode the training documents.

A document is one to four stories with a blank line between them. Training uses the documents as one
stream `<s> document </s> <s> document </s> ...`, cut into windows that each begin with `<s>`.
"""

from __future__ import annotations

import random

import torch

from stories import stories

TRAIN_SEED, HELDOUT_SEED, CALIBRATION_SEED = 20240601, 20240602, 20240603
TRAIN_BYTES, TEXT_BYTES = 17_500_000, 80_000
WINDOW = 256  # tokens in a window, including the leading <s>


def texts() -> tuple[list[str], list[str], list[str]]:
    """Training, held-out and calibration stories. No story is in two of the three."""
    train = stories(TRAIN_SEED, size=TRAIN_BYTES)
    seen = set(train)
    heldout = stories(HELDOUT_SEED, size=TEXT_BYTES, without=seen)
    calibration = stories(CALIBRATION_SEED, size=TEXT_BYTES, without=seen | set(heldout))
    assert not seen & set(heldout), "a held-out story occurs in the training set"
    assert not seen & set(calibration), "a calibration story occurs in the training set"
    assert not set(heldout) & set(calibration), "a held-out story occurs in the calibration set"
    return train, heldout, calibration


def documents(train: list[str]) -> list[str]:
    """The training stories in order, joined into documents of one to four stories."""
    rng = random.Random(TRAIN_SEED)
    out, at = [], 0
    while at < len(train):
        count = rng.randrange(1, 5)
        out.append("\n\n".join(train[at : at + count]))
        at += count
    return out


def windows(stream: list[int], bos: int) -> torch.Tensor:
    """The stream cut into rows of `WINDOW` ids that begin with `bos`; a short rest is dropped."""
    body = WINDOW - 1
    rows = torch.tensor(stream[: len(stream) // body * body]).view(-1, body)
    return torch.cat([torch.full((len(rows), 1), bos), rows], dim=1)


def training_windows(tokenizer, docs: list[str]) -> torch.Tensor:
    """All training windows. `tokenizer` is a tokenizers.Tokenizer with <s> and </s>."""
    bos, eos = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    stream = []
    for encoding in tokenizer.encode_batch(docs, add_special_tokens=False):
        stream += [bos, *encoding.ids, eos]
    return windows(stream, bos)
