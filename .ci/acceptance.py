"""Reads physarium's outputs with the safetensors package for Python and checks them with numpy.

In: the folder in which `.ci/acceptance` ran physarium on SmolLM2-135M, and the shared folder with the reference
values of transformers. Out: one line for each group of checks; fails on the first difference.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

WORK = Path(sys.argv[1])
SHARED = Path(sys.argv[2])
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def bits(folder):
    """The bits of every tensor of a checkpoint, as unsigned 16-bit integers."""
    tensors = {}
    for shard in sorted((WORK / folder).glob("*.safetensors")):
        raw = np.fromfile(shard, dtype="<u1")
        header_bytes = int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8 : 8 + header_bytes].tobytes())
        with safe_open(shard, framework="np") as opened:
            names = set(opened.keys())
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            assert name in names, f"{name}: safetensors does not list it"
            begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
            tensors[name] = raw[begin:end].view("<u2").reshape(entry["shape"])
    return tensors


def is_target(name):
    return name.endswith(".weight") and name.split(".")[-2] in KINDS


def floats(pattern):
    return (pattern.astype("<u4") << 16).view("<f4").astype(np.float64)


def literal_flow(tile, iterations=30, inflow=5.16):
    """The weights of a tile that the magnitude flow prunes, by the equations of docs/ALGORITHM.md."""
    food = np.abs(floats(tile)).ravel()
    distinct, counts = np.unique(food, return_counts=True)
    conductance = np.ones_like(distinct)
    for _ in range(iterations):
        total = 0.0
        for term in conductance * (distinct * counts):
            total += term
        flux = conductance * distinct * (inflow * food.size / total)
        conductance = flux**2 / (1.0 + flux**2)
    dead = distinct[conductance < 1e-3 * conductance.max()]
    return np.isin(food, dead).reshape(tile.shape) & (floats(tile) != 0)


def check_pruned():
    """Pruned weights are +0.0, sparsities are as requested, nothing else changed; the audit agrees."""
    model, flow, single = bits("model"), bits("flow"), bits("flow-single")
    half, pattern = bits("half"), bits("pattern")
    assert model.keys() == flow.keys() == single.keys() == half.keys() == pattern.keys()
    rng = np.random.default_rng(0)
    targets = [name for name in model if is_target(name)]
    assert len(targets) == 210
    pruned = 0
    for name, before in model.items():
        after = flow[name]
        assert (after == single[name]).all(), f"{name}: two shards and one file differ"
        if name not in targets:
            for other in (flow, half, pattern):
                assert (before == other[name]).all(), f"{name}: not a target, but changed"
            continue
        for other in (flow, half, pattern):
            changed = before != other[name]
            assert (other[name][changed] == 0).all(), f"{name}: a weight neither kept nor +0.0"
        pruned += int((before != after).sum())
        magnitudes = half[name] & 0x7FFF
        assert int((magnitudes == 0).sum()) == round(before.size / 2), f"{name}: not half"
        groups = (pattern[name] & 0x7FFF).reshape(-1, 4)
        assert ((groups != 0).sum(axis=1) <= 2).all(), f"{name}: more than 2 of 4 kept"
    act, allocated = bits("act"), bits("allocated")
    zeros = lambda tensors: sum(int((tensors[name] & 0x7FFF == 0).sum()) for name in targets)
    for name, before in model.items():
        for other in (act, allocated):
            assert name in targets or (before == other[name]).all(), f"{name}: changed"
            assert not (other[name] == 0x8000).any() or name not in targets, f"{name}: -0.0"
        if name in targets:
            here = int((act[name] & 0x7FFF == 0).sum())
            assert abs(here - before.size / 2) <= 1e-3 * before.size, f"{name}: {here} zeros"
    elements = sum(model[name].size for name in targets)
    assert abs(zeros(allocated) - elements / 2) <= 1e-3 * elements
    dense_nll, act_nll = (json.loads((WORK / f"{run}.json").read_text())["mean_nll_nats"] for run in ("dense", "act"))
    assert act_nll - dense_nll < 0.5, f"half pruned costs {act_nll - dense_nll} nats"
    for name in rng.choice(targets, size=12, replace=False):
        rows, cols = model[name].shape
        row, col = (256 * rng.integers(0, -(-size // 256)) for size in (rows, cols))
        window = (slice(row, row + 256), slice(col, col + 256))
        expected = literal_flow(model[name][window])
        found = model[name][window] != flow[name][window]
        assert (expected == found).all(), f"{name} tile at {row}, {col}: another mask"
    report = json.loads((WORK / "report/physarium.audit.json").read_text())
    assert report["denominator_correct"] and report["pruned"]["elements"] == pruned
    share = report["pruned"]["of_target"]
    print(f"numpy counts {pruned} pruned = {100 * pruned / share['whole']:.2f} % of target; agrees")


def check_eval():
    """The NLL of each token and their mean, compared with transformers in float32."""
    golden = json.loads((SHARED / "reference/smollm2-nll.json").read_text())
    found = [json.loads(line) for line in (WORK / "tokens.jsonl").read_text().splitlines()]
    assert [score["token"] for score in found] == golden["token_ids"][1:]
    off = [abs(score["nll_nats"] - nll) for score, nll in zip(found, golden["nll_nats"])]
    mean = sum(score["nll_nats"] for score in found) / len(found)
    assert max(off) < 1e-2 and abs(mean - golden["mean_nll"]) < 1e-3, (max(off), mean)
    dense = json.loads((WORK / "dense.json").read_text())
    assert dense["peak_rss_bytes"] < 600_000_000, dense
    print(f"mean NLL {mean:.5f}, transformers {golden['mean_nll']:.5f}, a token at most {max(off):.1e} off")


def read_packed(path, original):
    """Reads a packed file as docs/FORMATS.md describes it and compares each tensor with the original."""
    from itertools import combinations

    header_len = int.from_bytes(path.open("rb").read(8), "little")
    blobs = np.memmap(path, np.uint8, "r", offset=8 + header_len)
    header = json.loads(path.read_bytes()[8 : 8 + header_len])
    blob = lambda name: blobs[slice(*header[name]["data_offsets"])]
    contents = json.loads(bytes(blob("physarium.physpack/1:contents")))
    forms = set()
    for tensor in (t for file in contents["files"] for t in file.get("tensors", [])):
        name, form = tensor["name"], tensor["form"]
        expected = original[name]
        if form == "dense":
            forms.add("dense")
            dense = blob(f"dense:{name}")[: 2 * expected.size].view(np.uint16)
            assert (dense == expected.reshape(-1)).all(), name
            continue
        rows, cols = expected.shape
        ((kind, sizes),) = form.items()
        forms.add(kind)
        if kind == "mask":
            words = -(-cols // 32)
            mask = blob(f"mask:{name}")[: 4 * rows * words].reshape(rows, 4 * words)
            mask = np.unpackbits(mask, axis=1, bitorder="little")[:, :cols].astype(bool)
        else:
            keep, of = sizes["keep"], sizes["of"]
            masks = sorted(sum(1 << i for i in ones) for ones in combinations(range(of), keep))
            bits = (len(masks) - 1).bit_length()
            row = -(-(cols // of * bits) // 8)
            codes = np.unpackbits(blob(f"groups:{name}")[: rows * row].reshape(rows, row), axis=1, bitorder="little")
            codes = codes[:, : cols // of * bits].reshape(rows, cols // of, bits) @ (1 << np.arange(bits))
            masks = np.array([[mask >> i & 1 for i in range(of)] for mask in masks], bool)
            mask = masks[codes].reshape(rows, cols)
        found = np.zeros((rows, cols), np.uint16)
        found[mask] = blob(f"values:{name}")[: 2 * int(mask.sum())].view(np.uint16)
        assert (found == expected).all(), name
    return forms


def check_packed():
    """Packed files, read independently; the perplexity of a packed model, and generated text."""
    for name, kind in ("half", "mask"), ("pattern", "groups"), ("act", "mask"):
        forms = read_packed(WORK / f"{name}.physpack", bits(name))
        assert forms == {kind, "dense"}, (name, forms)
    nll = {run: json.loads((WORK / f"{run}.json").read_text())["mean_nll_nats"] for run in ("act", "packed")}
    assert nll["act"] == nll["packed"], nll
    said = json.loads((WORK / "dense-run.json").read_text())["text"]
    # What transformers 5.23 generates greedily, in float32 and in bfloat16.
    assert said.startswith(" Paris.\n\nThe answer is: 2018-01"), said
    print("packed files: another reader finds the same bits, and both forms measure the same")


check_pruned()
check_eval()
check_packed()
