#!/usr/bin/env python3
"""Tokens per second of transformers on the windows that `physarium eval` scores, for `cargo xtask bench eval`.

    python transformers_eval.py MODEL TEXT WINDOW WINDOWS THREADS

Prints one JSON object per line: {"dtype", "tokens_per_second", "mean_nll_nats"}. One window at a time, logits at every
position, NLL in float32; a warm-up run of the first window is not counted.
"""
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model_dir, text, window, windows, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(threads)
tokenizer = AutoTokenizer.from_pretrained(model_dir)
characters = open(text, encoding="utf-8").read()[: window * windows * 16]
ids = torch.tensor(tokenizer(characters, add_special_tokens=False)["input_ids"][: window * windows]).view(windows, window)

for name in ("float32", "bfloat16"):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, name)).eval()
    total = 0.0
    with torch.inference_mode():
        for count, row in enumerate([ids[0], *ids]):
            if count == 1:
                began = time.perf_counter()
            logits = model(row[None]).logits[0, :-1].float()
            nll = torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum").item()
            total += nll if count else 0.0
    seconds = time.perf_counter() - began
    print(json.dumps({"dtype": name, "tokens_per_second": window * windows / seconds,
                      "mean_nll_nats": total / (windows * (window - 1))}), flush=True)
