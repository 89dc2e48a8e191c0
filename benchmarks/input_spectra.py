"""Eigenvalues of the Gram matrices that the activation flow solves with, of a checkpoint's own activations.

    python3 benchmarks/input_spectra.py MODEL TEXT [--layers 0,1] [--tokens 8192]

Needs torch and transformers. Prints, for the inputs of q/k/v, o, gate/up and down of each layer, the quantiles of the eigenvalues
of the Gram matrix, scaled to a unit diagonal after a damping of 0.02 of its mean (so their mean is 1).
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW = 2048
QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
PARTS = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--layers", default="0,1")
    parser.add_argument("--tokens", type=int, default=8192)
    arguments = parser.parse_args()
    layers = [int(layer) for layer in arguments.layers.split(",")]
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16)
    model.model.layers = model.model.layers[: max(layers) + 1]
    grams = watch(model, layers)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokens = torch.tensor(tokenizer(open(arguments.text, encoding="utf-8").read())["input_ids"][: arguments.tokens])
    with torch.no_grad():
        for start in range(0, len(tokens), WINDOW):
            model.model(tokens[None, start : start + WINDOW], use_cache=False)
    print("| layer | inputs of |", " | ".join(f"{quantile:.0%}" for quantile in QUANTILES), "|")
    for (layer, part), gram in grams.items():
        gram.diagonal().add_(0.02 * gram.diagonal().mean())
        scale = gram.diagonal().rsqrt()
        values = torch.linalg.eigvalsh(gram * scale[:, None] * scale)
        found = [f"{values.quantile(quantile).item():.3g}" for quantile in QUANTILES]
        print(f"| {layer} | {part} |", " | ".join(found), "|", flush=True)


def watch(model, layers):
    """A Gram matrix for each of the inputs, which the forward pass adds to."""
    grams = {}
    for layer in layers:
        for part in PARTS:
            module = model.model.layers[layer].get_submodule(part)
            gram = torch.zeros(module.in_features, module.in_features)
            grams[layer, part] = gram

            def add(_, inputs, gram=gram):
                tokens = inputs[0].reshape(-1, gram.shape[0]).float()
                gram.addmm_(tokens.T, tokens)

            module.register_forward_pre_hook(add)
    return grams


main()
