"""A checkpoint of Qwen2.5-7B's shapes, enlarged from Qwen2.5-1.5B: for measurements where the real one is not at hand.

    python3 benchmarks/enlarge_checkpoint.py MODEL OUT [--noise 0.5] [--layers 28]

MODEL is a directory with Qwen2.5-1.5B (or Qwen2.5-Coder-1.5B). OUT gets 339 tensors of 7,615,616,512 elements in four shards
(15.2 GB), with MODEL's tokenizer. Needs numpy and nothing else.

Each feature of the small model stands for two or three of the large one (hidden 1,536 to 3,584, intermediate 8,960 to 18,944,
query heads 12 to 28, key-value heads 2 to 4). Weights are copied to them, and divided by the number of copies of their input:
without noise the large model computes the same as the small one. Noise of its own on each weight, `--noise` times the
root mean square of the small tensor (after the division), makes the copies different, so that no Gram matrix of inputs is
singular. So weights, activations and tokens have spectra like real ones, which Gaussian weights have not. It says nothing
about the perplexity of a real 7B model.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

HEAD = 128
LARGE = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
SHARD_LAYERS = 7


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--layers", type=int, default=28)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    small = Small(arguments.model)
    shards = [[] for _ in range(-(-arguments.layers // SHARD_LAYERS))]
    for tensor in tensors(small.config, arguments.layers):
        shards[shard_of(tensor[0])].append(tensor)
    weight_map = {}
    for number, held in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(arguments.out / file, held, small, arguments.noise)
        weight_map.update({name: file for name, *_ in held})
    index = {"metadata": {}, "weight_map": weight_map}
    (arguments.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    config = {**small.config, **LARGE, "num_hidden_layers": arguments.layers, "tie_word_embeddings": False}
    config.pop("layer_types", None)
    config["max_window_layers"] = arguments.layers
    (arguments.out / "config.json").write_text(json.dumps(config, indent=1))
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        if (arguments.model / name).exists():
            shutil.copy(arguments.model / name, arguments.out)


class Small:
    """The small checkpoint: tensors by name, as float32."""

    def __init__(self, directory):
        self.config = json.loads((directory / "config.json").read_text())
        self.files = {}
        for path in sorted(directory.glob("*.safetensors")):
            with open(path, "rb") as file:
                length = struct.unpack("<Q", file.read(8))[0]
                header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    assert entry["dtype"] == "BF16", f"{name}: expected BF16, found {entry['dtype']}"
                    self.files[name] = (path, 8 + length + entry["data_offsets"][0], entry["shape"])

    def tensor(self, name):
        path, offset, shape = self.files[name]
        words = np.memmap(path, np.uint16, "r", offset, tuple(shape))
        return (words.astype(np.uint32) << 16).view(np.float32)


def tensors(small, layers):
    """Names, the small model's name, and how rows and columns are copied."""
    hidden = copies(small["hidden_size"], LARGE["hidden_size"])
    inner = copies(small["intermediate_size"], LARGE["intermediate_size"])
    query, value = heads(small)
    vocabulary = copies(small["vocab_size"], LARGE["vocab_size"])
    yield "model.embed_tokens.weight", "model.embed_tokens.weight", vocabulary, (hidden[0], None)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for part, rows, columns in [
            ("self_attn.q_proj", query, hidden),
            ("self_attn.k_proj", value, hidden),
            ("self_attn.v_proj", value, hidden),
            ("self_attn.o_proj", hidden, query),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ]:
            yield f"{at}{part}.weight", f"{at}{part}.weight", rows, columns
            if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                yield f"{at}{part}.bias", f"{at}{part}.bias", rows, None
        for norm in ["input_layernorm", "post_attention_layernorm"]:
            yield f"{at}{norm}.weight", f"{at}{norm}.weight", hidden, None
    yield "model.norm.weight", "model.norm.weight", hidden, None
    yield "lm_head.weight", "model.embed_tokens.weight", vocabulary, hidden


def shard_of(name):
    """The place of a tensor's shard: the embedding is in the first, what comes after the layers in the last."""
    if name.startswith("model.layers."):
        return int(name.split(".")[2]) // SHARD_LAYERS
    return 0 if name == "model.embed_tokens.weight" else -1


def copies(small, large):
    """For each large feature its small one, and how many large ones that has."""
    source = np.arange(large) % small
    return source, np.bincount(source, minlength=small)[source]


def heads(small):
    """As `copies`, for the features of query heads and of key-value heads. A query head keeps its key-value head."""
    per_small = small["num_attention_heads"] // small["num_key_value_heads"]
    per_large = LARGE["num_attention_heads"] // LARGE["num_key_value_heads"]
    value = np.arange(LARGE["num_key_value_heads"]) % small["num_key_value_heads"]
    query = (value[:, None] * per_small + np.arange(per_large) % per_small).ravel()
    return widened(query), widened(value)


def widened(source):
    features = (source[:, None] * HEAD + np.arange(HEAD)).ravel()
    return features, np.bincount(features)[features]


def write_shard(path, held, small, noise):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, _, rows, columns in held:
        shape = [len(rows[0])] + ([len(columns[0])] if columns else [])
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, source, rows, columns in held:
            rng = np.random.default_rng(list(name.encode()))
            write_tensor(file, small.tensor(source), rows, columns, noise, rng)
    print(path, flush=True)


def write_tensor(file, weights, rows, columns, noise, rng):
    """A matrix in pieces of 1,024 rows; biases and norms are copied without noise."""
    if columns is None:
        file.write(bf16(weights[rows[0]]).tobytes())
        return
    source, count = columns
    scale = np.float32(1) if count is None else (1 / count).astype(np.float32)
    size = np.float32(noise * np.sqrt(np.mean(np.square(weights, dtype=np.float32))))
    for start in range(0, len(rows[0]), 1024):
        piece = weights[rows[0][start : start + 1024]][:, source]
        piece = (piece + size * rng.standard_normal(piece.shape, dtype=np.float32)) * scale
        file.write(bf16(piece).tobytes())


def bf16(values):
    """The nearest BF16 numbers, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


main()
