"""Checks what physarium measured on Gemma 3 270M against transformers.

In: the folder in which `.ci/acceptance` ran physarium, and the shared folder with the reference values. Out: one line;
fails on the first difference.
"""

import json
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
SHARED = Path(sys.argv[2])

golden = json.loads((SHARED / "reference/gemma3-270m-nll.json").read_text())
nll = {
    run: json.loads((WORK / f"{run}.json").read_text())["mean_nll_nats"]
    for run in ("gemma-text", "gemma-each-window", "gemma-flow", "gemma-packed")
}
# Two windows of 1024 tokens: more than a sliding window, and a second window that begins with BOS or does not.
for place, bos in (("text", "once"), ("each-window", "each window")):
    run = next(run for run in golden["runs"] if run["window"] == 1024 and run["bos"] == bos)
    wanted = sum(run["mean_nll_per_window"][:2]) / 2
    assert abs(nll[f"gemma-{place}"] - wanted) < 1e-4, (place, nll, wanted)
assert nll["gemma-flow"] == nll["gemma-packed"], nll
assert abs(nll["gemma-flow"] - nll["gemma-each-window"]) < 1, nll
text = next(run["text"] for run in golden["greedy"] if run["prompt"] == "The capital of France is")
written = (WORK / "gemma.txt").read_text()
# A near tie may fall the other way in another arithmetic, so that only the beginning has to be the same.
assert text[:32] in written, (text, written)
print(f"Gemma 3 270M: mean NLL {nll['gemma-each-window']:.5f}, transformers {wanted:.5f}, and its text; packed the same")
