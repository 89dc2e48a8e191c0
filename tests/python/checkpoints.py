"""Checkpoints and their tensors, read and written without physarium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def files(out: Path) -> dict[str, bytes]:
    """The files of an output, except the times in its journal and manifest."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def header(shard: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begin."""
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def bf16_tensor(model: Path, name: str) -> NDArray[np.float32]:
    """A BF16 tensor of a checkpoint as float32."""
    for shard in sorted(model.glob("*.safetensors")):
        tensors, data = header(shard)
        if name in tensors:
            begin, end = tensors[name]["data_offsets"]
            assert tensors[name]["dtype"] == "BF16"
            with shard.open("rb") as file:
                file.seek(data + begin)
                bits = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(tensors[name]["shape"])
    raise KeyError(name)


def write(model: Path, tensors: dict[str, NDArray[np.float32]], **config: Any) -> Path:
    """Writes a checkpoint of float32 tensors."""
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    entries: dict[str, Any] = {}
    data = b""
    for name, values in tensors.items():
        end = len(data) + values.nbytes
        entries[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [len(data), end],
        }
        data += values.tobytes()
    text = json.dumps(entries).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return model
