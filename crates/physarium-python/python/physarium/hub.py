"""Downloads models of the Hugging Face hub into the hub cache, where physarium finds them by id.

Needs the package huggingface_hub (``pip install physarium[hub]``), whose environment variables, tokens and errors hold.
"""

from __future__ import annotations

import json
import pathlib

from .errors import InputError, UsageError

try:
    from huggingface_hub import snapshot_download
except ImportError as e:
    raise ImportError(
        "physarium.hub needs the package huggingface_hub: pip install physarium[hub]"
    ) from e

_INDEX = "model.safetensors.index.json"
_FILES = [
    "config.json",
    "generation_config.json",
    _INDEX,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "README.md",
    "LICENSE*",
]
"""What physarium reads or an output should have, without weights."""


def download(name: str, revision: str | None = None) -> pathlib.Path:
    """Downloads a model, unless the hub cache has it. Returns its directory there.

    ``name`` is ``org/name`` or ``org/name@revision``, ``revision`` a branch, tag or whole commit, by default ``main``. Only
    weights in safetensors, configuration, tokenizer and README.md are downloaded. The same call resumes a download that was
    interrupted.
    """
    name, _, in_name = name.partition("@")
    if in_name and revision is not None:
        raise UsageError(f"revision cannot be combined with @{in_name} in the name")
    snapshot = _download(name, revision or in_name or None, _FILES)
    # The same commit, also if a branch has moved meanwhile.
    return _download(name, snapshot.name, [*_FILES, *_shards(snapshot)])


def _download(name: str, revision: str | None, files: list[str]) -> pathlib.Path:
    # A pattern's * also means parts of a path: files in folders are not read.
    patterns = {"allow_patterns": files, "ignore_patterns": ["*/*"]}
    return pathlib.Path(
        snapshot_download(name, revision=revision, library_name="physarium", **patterns)
    )


def _shards(snapshot: pathlib.Path) -> list[str]:
    """The files of weights: repositories may have others beside them."""
    index = snapshot / _INDEX
    if not index.exists():
        return ["model.safetensors"]
    try:
        return sorted({str(shard) for shard in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        expected, found = "an index of weights with a weight_map", f"{type(e).__name__}: {e}"
        message = f"{index}: expected {expected}, found {found}"
        raise InputError(message, file=index, expected=expected, found=found) from e
