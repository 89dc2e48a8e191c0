"""A checkpoint of the shapes of Qwen2.5-7B or Qwen2.5-72B whose weights are all zero, in sparse files: for plans of runs on large models.

    python3 benchmarks/zeros_checkpoint.py MODEL OUT --size 7b|72b

MODEL is a directory with any Qwen2.5, of which the tokenizer and the rest of config.json are taken. OUT takes a few MB of disk. Needs
nothing but Python.
"""

import argparse
import json
import shutil
import struct
from math import prod
from pathlib import Path

SIZES = {
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "num_hidden_layers": 28},
    "72b": {"hidden_size": 8192, "intermediate_size": 29568, "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80},
}
VOCABULARY = 152064
HEAD = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, required=True)
    arguments = parser.parse_args()
    shape = SIZES[arguments.size]
    arguments.out.mkdir(parents=True)
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        if (arguments.model / name).exists():
            shutil.copy(arguments.model / name, arguments.out)
    config = json.loads((arguments.model / "config.json").read_text())
    changed = {"vocab_size": VOCABULARY, "tie_word_embeddings": False, "max_window_layers": shape["num_hidden_layers"]}
    (arguments.out / "config.json").write_text(json.dumps(config | shape | changed, indent=2))
    parts = [outside(shape)] + [layer(shape, number) for number in range(shape["num_hidden_layers"])]
    weight_map, total = {}, 0
    for number, tensors in enumerate(parts, start=1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        total += write(arguments.out / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (arguments.out / "model.safetensors.index.json").write_text(json.dumps(index))


def outside(shape):
    """The tensors that are in no layer."""
    hidden = shape["hidden_size"]
    return {
        "lm_head.weight": [VOCABULARY, hidden],
        "model.embed_tokens.weight": [VOCABULARY, hidden],
        "model.norm.weight": [hidden],
    }


def layer(shape, number):
    """The tensors of a layer."""
    hidden, middle = shape["hidden_size"], shape["intermediate_size"]
    keys = shape["num_key_value_heads"] * HEAD
    tensors = {
        "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden],
        "self_attn.q_proj.weight": [hidden, hidden],
        "self_attn.q_proj.bias": [hidden],
        "self_attn.k_proj.weight": [keys, hidden],
        "self_attn.k_proj.bias": [keys],
        "self_attn.v_proj.weight": [keys, hidden],
        "self_attn.v_proj.bias": [keys],
        "self_attn.o_proj.weight": [hidden, hidden],
        "mlp.gate_proj.weight": [middle, hidden],
        "mlp.up_proj.weight": [middle, hidden],
        "mlp.down_proj.weight": [hidden, middle],
    }
    return {f"model.layers.{number}.{name}": dimensions for name, dimensions in tensors.items()}


def write(path, tensors):
    """Writes a shard, and returns the bytes of its tensors."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dimensions in tensors.items():
        begin, end = end, end + 2 * prod(dimensions)
        header[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return end


main()
