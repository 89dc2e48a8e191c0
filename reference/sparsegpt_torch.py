#!/usr/bin/env python3
"""SparseGPT (Frantar and Alistarh 2023, algorithm 1) in PyTorch: a baseline for wall time, and an independent check.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers==5.23.0 safetensors
    /tmp/venv/bin/python reference/sparsegpt_torch.py MODEL --calibration FILE --sparsity 0.5 [--out DIR]

Float32, layer by layer: all windows pass the layer while its projections' inputs are summed into X X^T; the
projections are pruned; the windows pass again. Prints one JSON line: total seconds, and seconds in the solver.
"""
import argparse
import json
import time

import torch
import transformers

BLOCK, DAMPING = 128, 0.01


class Sums:
    """Sum of X X^T over a linear map's inputs."""

    def __init__(self, layer):
        self.sum, self.tokens = torch.zeros(layer.in_features, layer.in_features), 0

    def add(self, x):
        x = x.reshape(-1, x.shape[-1]).float()
        self.sum.addmm_(x.t(), x)
        self.tokens += x.shape[0]


@torch.no_grad()
def prune(weight, sums, sparsity, tokens):
    """Prunes `weight` [out, in] in place."""
    gram = sums / tokens
    dead = torch.diagonal(gram) == 0
    gram[dead, dead] = 1
    weight[:, dead] = 0
    gram.diagonal().add_(DAMPING * torch.diagonal(gram).mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    for begin in range(0, weight.shape[1], BLOCK):
        end = min(begin + BLOCK, weight.shape[1])
        block, upper = weight[:, begin:end].clone(), factor[begin:end, begin:end]
        scores = block.square() / torch.diagonal(upper).square()
        line = scores.flatten().sort().values[int(scores.numel() * sparsity)]
        mask, errors = scores <= line, torch.zeros_like(block)
        for i in range(end - begin):
            column = block[:, i].clone()
            kept = torch.where(mask[:, i], 0, column)
            errors[:, i] = (column - kept) / upper[i, i]
            block[:, i:] -= errors[:, i, None] * upper[None, i, i:]
            block[:, i] = kept
        weight[:, begin:end] = block
        weight[:, end:] -= errors @ factor[begin:end, end:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    begin = time.time()
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    ids = tokenizer(open(arguments.calibration, encoding="utf-8").read(), add_special_tokens=False).input_ids
    windows = [ids[i:i + arguments.window] for i in range(0, len(ids) - arguments.window + 1, arguments.window)]
    every = len(windows) / arguments.windows
    windows = [windows[int(i * every)] for i in range(arguments.windows)]
    solver = 0.0
    with torch.no_grad():
        hidden = [model.model.embed_tokens(torch.tensor([window])) for window in windows]
        positions = torch.arange(arguments.window)[None]
        rotary = model.model.rotary_emb(hidden[0], positions)
        mask = torch.full((arguments.window, arguments.window), float("-inf")).triu(1)[None, None]

        def forward(layer, x):
            y = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
            return y[0] if isinstance(y, tuple) else y

        for layer in model.model.layers:
            linears = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
            sums = {linear: Sums(linear) for linear in linears}
            hooks = [linear.register_forward_hook(lambda m, x, y: sums[m].add(x[0])) for linear in linears]
            for x in hidden:
                forward(layer, x)
            for hook in hooks:
                hook.remove()
            start = time.time()
            for linear in linears:
                prune(linear.weight.data, sums[linear].sum, arguments.sparsity, sums[linear].tokens)
            solver += time.time() - start
            hidden = [forward(layer, x) for x in hidden]
    if arguments.out:
        model.to(torch.bfloat16).save_pretrained(arguments.out)
        tokenizer.save_pretrained(arguments.out)
    print(json.dumps({"seconds": round(time.time() - begin, 2), "solver_seconds": round(solver, 2)}))


if __name__ == "__main__":
    main()
