#!/usr/bin/env python3
"""Golden values for the decoder: tiny random models and their per-token NLL by transformers in float32.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers==5.23.0 safetensors
    /tmp/venv/bin/python reference/decoder_golden.py

Writes crates/physarium-model/tests/golden/NAME/{config.json,model.safetensors,golden.json}. Weights are stored
in the dtype named below; the computation is in float32, so the golden values hold for exactly the stored bytes.
"""
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/physarium-model/tests/golden"
TOKENS, VOCABULARY = 96, 80
BASE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=VOCABULARY, max_position_embeddings=128, initializer_range=0.15, attn_implementation="eager")
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}

# name: (config class, its own fields, stored dtype, transformers version of config.json)
MODELS = {
    "llama": ("LlamaConfig", dict(tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=DEFAULT), "bfloat16", 4),
    "llama3-rope": ("LlamaConfig", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}), "float32", 4),
    "mistral": ("MistralConfig", dict(sliding_window=7, tie_word_embeddings=False, rope_parameters=DEFAULT), "float32", 5),
    "mistral-linear": ("MistralConfig", dict(sliding_window=None, head_dim=12, rope_parameters={
        "rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}), "bfloat16", 4),
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True, rope_parameters=DEFAULT), "bfloat16", 5),
    "qwen2-yarn": ("Qwen2Config", dict(tie_word_embeddings=False, use_sliding_window=True, sliding_window=70,
                                       max_window_layers=2, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}), "float16", 4),
    "qwen3": ("Qwen3Config", dict(head_dim=16, tie_word_embeddings=False, rope_parameters=DEFAULT), "bfloat16", 5),
    "gemma3": ("Gemma3TextConfig", dict(head_dim=16, tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=9,
                                        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 3000.0},
                                                         "sliding_attention": {"rope_type": "default",
                                                                               "rope_theta": 100.0}}), "bfloat16", 5),
    "gemma3-linear": ("Gemma3TextConfig", dict(head_dim=12, num_hidden_layers=4, sliding_window=7, sliding_window_pattern=3,
                                               rope_theta=1000.0, rope_local_base_freq=50.0,
                                               rope_scaling={"rope_type": "linear", "factor": 4.0}), "float32", 4),
}


def config_json(config, dialect):
    """config.json as written by the given major version of transformers."""
    fields = json.loads(config.to_json_string(use_diff=False))
    kept = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rms_norm_eps", "hidden_act",
            "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
            "max_window_layers", "layer_types", "rope_parameters", "dtype", "hidden_activation", "query_pre_attn_scalar"]
    fields = {name: fields[name] for name in kept if name in fields}
    if dialect == 4:
        rope = fields.pop("rope_parameters")
        fields.pop("layer_types", None)
        if "sliding_attention" in rope:
            fields["sliding_window_pattern"] = config._sliding_window_pattern
            fields["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = rope["full_attention"]
        fields["rope_theta"] = rope.pop("rope_theta")
        fields["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        fields["torch_dtype"] = fields.pop("dtype")
    return fields


def main():
    for seed, (name, (kind, own, dtype, dialect)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = getattr(transformers, kind)(**{**BASE, **own})
        model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
        stored = getattr(torch, dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # norms are initialised to one and biases to zero
                    parameter.add_(torch.randn_like(parameter) * 0.2)
                parameter.copy_(parameter.to(stored).float())
        ids = torch.randint(0, VOCABULARY, (1, TOKENS))
        with torch.no_grad():
            logits = model(ids).logits[0].double()
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        directory = OUT / name
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {n: t.to(stored).contiguous() for n, t in model.state_dict().items()
                   if not (config.tie_word_embeddings and n == "lm_head.weight")}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        config.dtype = stored
        (directory / "config.json").write_text(json.dumps(config_json(config, dialect), indent=2) + "\n")
        golden = {"made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
                  "tokens": ids[0].tolist(), "nll": [round(x, 7) for x in nll.tolist()],
                  "last_logits": [round(x, 6) for x in logits[-1].tolist()]}
        (directory / "golden.json").write_text(json.dumps(golden) + "\n")
        print(name, dtype, f"mean NLL {nll.mean():.5f}")


if __name__ == "__main__":
    main()
