#!/usr/bin/env python3
"""What lm-evaluation-harness makes of the items of `crates/physarium/tests/evaluation`, by the demo model in float32.

    pip install lm_eval[hf]
    python reference/choices_golden.py demo/model crates/physarium/tests/evaluation

Reads `items.jsonl` and writes `lm_eval.json`: version, acc, acc_norm with their standard errors, and for each item the
log-likelihoods of its choices and whether it is right.
"""
import importlib.metadata
import json
import pathlib
import sys

import lm_eval

model, directory = sys.argv[1], pathlib.Path(sys.argv[2])
task = {
    "task": "items",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": str(directory / "items.jsonl")}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": lambda item: item["context"],
    "doc_to_choice": lambda item: item["choices"],
    "doc_to_target": lambda item: item["answer"],
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
    ],
    "metadata": {"version": 1.0},
}
ran = lm_eval.simple_evaluate(
    model="hf",
    model_args={"pretrained": model, "dtype": "float32"},
    tasks=[task],
    device="cpu",
    batch_size=1,
    log_samples=True,
)
(samples,) = ran["samples"].values()
(result,) = ran["results"].values()
names = ("acc", "acc_norm", "acc_stderr", "acc_norm_stderr")
golden = {"lm_eval": importlib.metadata.version("lm_eval"), **{name: result[f"{name},none"] for name in names}}
golden["items"] = [
    {
        "log_likelihoods": [float(response[0][0]) for response in sample["resps"]],
        "acc": sample["acc"],
        "acc_norm": sample["acc_norm"],
    }
    for sample in sorted(samples, key=lambda sample: sample["doc_id"])
]
(directory / "lm_eval.json").write_text(json.dumps(golden, indent=1) + "\n")
