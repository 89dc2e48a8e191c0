"""Checks what physarium measured on Qwen2.5-Coder-0.5B against transformers.

In: the folder in which `.ci/acceptance` ran physarium, and the shared folder with the reference values. Out: one line;
fails on the first difference.
"""

import json
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
SHARED = Path(sys.argv[2])

golden = json.loads((SHARED / "reference/qwen25-0.5b-nll.json").read_text())
wanted = next(run for run in golden["runs"] if run["window"] == 512)["mean_nll"]
nll = {
    run: json.loads((WORK / f"{run}.json").read_text())["mean_nll_nats"]
    for run in ("qwen-dense", "qwen-packed", "qwen-wanda-dense", "qwen-wanda-packed")
}
assert abs(nll["qwen-dense"] - wanted) < 1e-4, (nll, wanted)
assert nll["qwen-dense"] == nll["qwen-packed"], nll
assert nll["qwen-wanda-dense"] == nll["qwen-wanda-packed"], nll
print(f"Qwen2.5-Coder-0.5B: mean NLL {nll['qwen-dense']:.5f}, transformers {wanted:.5f}; packed the same")
