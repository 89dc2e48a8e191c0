#!/usr/bin/env python3
"""Golden values for the activation-aware methods, in float64, written from their equations with numpy only.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy
    /tmp/venv/bin/python reference/solvers_golden.py

Writes crates/physarium-flow/tests/golden/solvers.json: weights, inputs of the pruned and of the dense model, output
costs, and the result of each method. Inputs are correlated; one of them is dead.
"""
import json
import pathlib

import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/physarium-flow/tests/golden/solvers.json"
ROWS, COLS, TOKENS, DEAD = 5, 136, 60, 17
BLOCK = 128


def damped(x, fraction):
    gram = x.T @ x / len(x)
    return gram, fraction * np.diag(gram).mean()


def zero_smallest(scores, zeros):
    """Which stay, of a flat array, when the `zeros` smallest go."""
    stays = np.ones(scores.size, bool)
    stays[np.argsort(scores.ravel(), kind="stable")[:zeros]] = False
    return stays.reshape(scores.shape)


def best_of(scores, keep, group):
    stays = np.zeros(scores.shape, bool)
    for row in range(len(scores)):
        for begin in range(0, scores.shape[1], group):
            order = np.argsort(-scores[row, begin:begin + group], kind="stable")
            stays[row, begin + order[:keep]] = True
    return stays


def wanda(w, x, share):
    norms = np.sqrt(np.square(x).mean(0))
    stays = [zero_smallest(np.abs(row) * norms, round(share * COLS)) for row in w]
    return np.where(np.array(stays), w, 0)


def sparsegpt(w, x, share=None, pattern=None):
    gram, damping = damped(x, 0.01)
    dead = np.diag(gram) == 0
    gram[dead, dead] = 1
    w = np.where(dead, 0, w)
    factor = np.linalg.cholesky(np.linalg.inv(gram + damping * np.eye(COLS))).T
    spent = 0
    for begin in range(0, COLS, BLOCK):
        end = min(begin + BLOCK, COLS)
        if share is not None:
            until = int(round(share * w.size) * end / COLS)
            scores = np.square(w[:, begin:end] / np.diag(factor)[begin:end])
            stays, spent = zero_smallest(scores, until - spent), until
        for i in range(begin, end):
            if pattern and i % pattern[1] == 0:
                here = slice(i, i + pattern[1])
                chosen = best_of(np.square(w[:, here] / np.diag(factor)[here]), *pattern)
            kept = chosen[:, i % pattern[1]] if pattern else stays[:, i - begin]
            error = np.where(kept, 0, w[:, i]) / factor[i, i]
            w[:, i:] -= np.outer(error, factor[i, i:])
            w[:, i] = np.where(kept, w[:, i], 0)
    return w


def refit(gram, q, demand, stays, steps, every):
    """Conjugate gradients on the entries that stay; the remainder is computed anew after `every` steps."""
    for begin in range(0, steps, every):
        rest = demand - q @ gram
        direction, norm = np.zeros_like(q), None
        for step in range(min(every, steps - begin) + 1):
            if step:
                through = direction @ gram
                length = norm / np.sum(direction * through, 1, keepdims=True)
                q, rest = q + length * direction, rest - length * through
            residual = np.where(stays, rest, 0)
            following = np.sum(np.square(residual), 1, keepdims=True)
            direction = residual + (0 if norm is None else following / norm) * direction
            norm = following
    return q


def activation_flow(
    w, x, dense, costs, share=None, pattern=None, steps=6, coupling=(0.5, 0.5), levels=1, exponent=(2.0, 32.0),
    refit_steps=6, target_share=0.6, damping=0.02, every=5,
):
    gram, damping = damped(x, damping)
    scale = np.sqrt(np.diag(gram) + damping)
    weigh = np.sqrt(costs / costs.mean())[:, None]
    outputs = target_share * dense @ w.T + (1 - target_share) * x @ w.T
    demand = weigh * (outputs.T @ x / len(x) + damping * w) / scale
    gram = (gram + damping * np.eye(COLS)) / np.outer(scale, scale)
    offered, zeros = weigh * w * scale, round((share or 0) * w.size)
    rho = [coupling[0]] if levels == 1 else np.geomspace(*coupling, levels)
    beta = np.geomspace(*exponent, steps - 1)
    carried, refused = offered, np.zeros_like(offered)
    for step in range(steps):
        now, before = rho[step * levels // steps], rho[max(step - 1, 0) * levels // steps]
        if step:
            size = np.abs(offered)
            if share is not None:
                line = np.sort(size.ravel())[zeros]
            else:
                keep, group = pattern
                ranked = np.sort(size.reshape(-1, group), 1)
                line = np.sqrt(ranked[:, group - keep - 1] * ranked[:, group - keep])
                line = line.repeat(group).reshape(size.shape)
            conductance = np.power(size / line, beta[step - 1])
            carried = offered * conductance / (1 + conductance)
            refused = (offered - carried) * before / now
        solver = np.linalg.inv(gram + now * np.eye(COLS))
        offered = (demand + now * (carried - refused)) @ solver + refused
    # Weights of dead inputs go first, the smallest of them before the others.
    size = np.where(np.diag(x.T @ x) == 0, np.abs(w) - 1e6, np.abs(offered))
    stays = zero_smallest(size, zeros) if share is not None else best_of(size, *pattern)
    q = refit(gram, np.where(stays, offered, 0), demand, stays, refit_steps, every)
    return q / scale / weigh


def main():
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(COLS // 3, COLS))
    dense = rng.normal(size=(TOKENS, COLS // 3)) @ mixing / 6 + 0.4 * rng.normal(size=(TOKENS, COLS))
    x = dense + 0.2 * rng.normal(size=dense.shape)
    x[:, DEAD] = dense[:, DEAD] = 0
    w, costs = rng.normal(size=(ROWS, COLS)), np.exp(rng.normal(size=ROWS))
    w, x, dense, costs = (np.round(a * 1000) / 1000 for a in (w, x, dense, costs))
    results = {
        "wanda": wanda(w, x, 0.5),
        "sparsegpt": sparsegpt(w, x, share=0.5),
        "sparsegpt-2:4": sparsegpt(w, x, pattern=(2, 4)),
        "activation-flow": activation_flow(w, x, dense, costs, share=0.6),
        "activation-flow-2:4": activation_flow(w, x, dense, costs, pattern=(2, 4)),
        "activation-flow-levels": activation_flow(
            w, x, dense, costs, share=0.6, steps=15, coupling=(0.2, 0.8), levels=3, exponent=(3.0, 48.0), refit_steps=7,
            target_share=1.0, damping=0.01,
        ),
    }
    text = {"rows": ROWS, "cols": COLS, "made_by": f"numpy {np.__version__}"}
    inputs = {"weights": w, "x": x, "dense": dense, "output_costs": costs}
    for name, array in inputs.items():
        text[name] = [round(float(v), 3) for v in array.ravel()]
    text["results"] = {name: [float(f"{v:.7g}") for v in a.ravel()] for name, a in results.items()}
    OUT.write_text(json.dumps(text) + "\n")
    for name, array in results.items():
        print(name, int((array == 0).sum()), "zeros of", array.size)


if __name__ == "__main__":
    main()
