#!/usr/bin/env python3
"""Golden values for sensitivities: mean squares of the inputs of projections and of the gradients at their outputs.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers==5.23.0 safetensors
    /tmp/venv/bin/python reference/sensitivity_golden.py

Reads the models that decoder_golden.py wrote and writes sensitivity.json beside them: by autograd in float64, with
the loss summed over the next tokens of two windows of 48.
"""
import json
import pathlib

import torch
import transformers

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "crates/physarium-model/tests/golden"
WINDOW = 48


def main():
    for directory in sorted(path for path in GOLDEN.iterdir() if path.is_dir()):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, attn_implementation="eager", dtype=torch.float64).eval()
        tokens = json.loads((directory / "golden.json").read_text())["tokens"]
        sums = {}

        def watch(name):
            def note(module, inputs, output):
                squares = sums.setdefault(name, [0, 0])
                squares[0] = squares[0] + inputs[0].detach()[0].square().sum(0)

                def add_gradient(gradient):
                    squares[1] = squares[1] + gradient[0].square().sum(0)
                output.register_hook(add_gradient)
            return note

        for name, module in model.named_modules():
            if name.startswith("model.layers.") and isinstance(module, torch.nn.Linear):
                module.register_forward_hook(watch(name))
        for begin in range(0, len(tokens), WINDOW):
            ids = torch.tensor([tokens[begin:begin + WINDOW]])
            logits = model(ids).logits[0]
            torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum").backward()
        means = {name: [[float(f"{x:.6g}") for x in (s / len(tokens)).tolist()] for s in pair]
                 for name, pair in sums.items()}
        (directory / "sensitivity.json").write_text(json.dumps(means) + "\n")
        print(directory.name, len(means))


if __name__ == "__main__":
    main()
