"""The solvers on numpy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import physarium
import physarium.flow
import pytest
from numpy.typing import NDArray

import checkpoints

Matrix = NDArray[np.float32]
TENSOR = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def w(model: Path) -> Matrix:
    """A projection of the bundled model."""
    return checkpoints.bf16_tensor(model, TENSOR)


@pytest.fixture(scope="module")
def gram(w: Matrix) -> Matrix:
    """A Gram matrix of correlated inputs of very different sizes."""
    random = np.random.default_rng(1)
    cols = w.shape[1]
    mix = random.normal(size=(cols, cols)) * np.exp(random.normal(size=cols))
    x = random.normal(size=(4 * cols, cols)) @ mix
    mean: Matrix = (x.T @ x / len(x)).astype(np.float32)
    return mean


def error(w: Matrix, pruned: Matrix, gram: Matrix) -> float:
    """The relative squared error of the outputs."""
    change = (pruned - w).astype(np.float64)
    whole = w.astype(np.float64)
    return float(np.sum(change @ gram * change) / np.sum(whole @ gram * whole))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block_size": 64, "iterations": 12, "beta": 1.5, "inflow": 4.0},
        {"sparsity": 0.4},
        {"sparsity": 0.4, "block_size": 100},
        {"method": "magnitude", "sparsity": 0.7},
        {"method": "magnitude", "sparsity": 0.3, "scope": "tile", "block_size": 50},
        {"pattern": "2:4"},
        {"method": "magnitude", "pattern": "3:7"},
    ],
)
def test_weights_alone_as_the_program_prunes_them(
    options: dict[str, Any], w: Matrix, model: Path, tmp_path: Path
) -> None:
    pruned = physarium.flow.prune_matrix(w, **options)
    physarium.prune(model, tmp_path / "out", target=TENSOR, **options)
    expected = checkpoints.bf16_tensor(tmp_path / "out", TENSOR)
    assert np.array_equal(pruned.view(np.uint32), expected.view(np.uint32))
    assert 0 < np.count_nonzero(pruned) < np.count_nonzero(w)


def test_wanda_is_that_of_its_definition(w: Matrix, gram: Matrix) -> None:
    pruned = physarium.flow.prune_matrix(w, gram=gram, method="wanda", pattern="2:4")
    scores = np.abs(w) * np.sqrt(np.diagonal(gram))
    groups = scores.reshape(len(w), -1, 4)
    keep = np.argsort(np.argsort(groups, axis=2, kind="stable"), axis=2) >= 2
    assert np.mean((pruned != 0) == (keep.reshape(w.shape) & (w != 0))) > 0.9999
    kept = pruned != 0
    assert np.array_equal(pruned[kept], w[kept])


def test_methods_that_update_weights_lose_less(w: Matrix, gram: Matrix) -> None:
    losses = {}
    for method in ("wanda", "sparsegpt", "activation-flow"):
        pruned = physarium.flow.prune_matrix(w, gram=gram, method=method, sparsity=0.5)
        assert np.count_nonzero(pruned == 0) == round(0.5 * w.size)
        losses[method] = error(w, pruned, gram)
    assert losses["activation-flow"] < losses["sparsegpt"] < losses["wanda"] < 1
    by_default = physarium.flow.prune_matrix(w, gram=gram, sparsity=0.5)
    assert error(w, by_default, gram) == losses["activation-flow"]
    quick = physarium.flow.prune_matrix(w, gram=gram, sparsity=0.5, effort="quick")
    assert error(w, quick, gram) > losses["activation-flow"]


def test_any_number_of_threads_and_any_layout_give_the_same(w: Matrix, gram: Matrix) -> None:
    options: dict[str, Any] = {"sparsity": 0.5, "arithmetic": "f32"}
    one = physarium.flow.prune_matrix(w, gram=gram, threads=1, **options)
    before = w.copy()
    three = physarium.flow.prune_matrix(np.asfortranarray(w), gram=gram.T, threads=3, **options)
    assert np.array_equal(one, three) and np.array_equal(w, before)
    assert one.flags.c_contiguous and one.dtype == np.float32
    wide = np.repeat(w, 2, axis=1)[:, ::2]
    assert np.array_equal(
        physarium.flow.prune_matrix(wide), physarium.flow.prune_matrix(w, threads=3)
    )


def test_nan_is_kept_where_that_is_allowed(w: Matrix) -> None:
    damaged = w.copy()
    damaged[3, 4] = np.nan
    pruned = physarium.flow.prune_matrix(
        damaged, method="magnitude", sparsity=0.5, allow_nonfinite=True
    )
    assert np.isnan(pruned[3, 4]) and np.count_nonzero(pruned == 0) == round(0.5 * w.size)


def with_value(matrix: Matrix, row: int, col: int, value: float) -> Matrix:
    """A copy with one other number."""
    changed = matrix.copy()
    changed[row, col] = value
    return changed


def test_matrices_that_cannot_be_used(w: Matrix, gram: Matrix) -> None:
    def raised(w: Any, **options: Any) -> physarium.InputError:
        with pytest.raises(physarium.InputError) as caught:
            physarium.flow.prune_matrix(w, **options)
        return caught.value

    half: dict[str, Any] = {"sparsity": 0.5}
    cols = w.shape[1]
    for error, tensor, expected, found in [
        (raised(w.tolist()), "weights", "a numpy array", "list"),
        (raised(w.astype(np.float64)), "weights", "float32", "float64"),
        (raised(w[0]), "weights", "2 dimensions", "1"),
        (raised(w[:0]), "weights", "at least one row and one column", f"[0, {cols}]"),
        (raised(with_value(w, 1, 2, np.inf)), "weights", "finite numbers", "1 NaN or infinite ones, the first at row 1, column 2"),
        (raised(w, gram=gram[1:], **half), "gram", f"the shape ({cols}, {cols})", f"({cols - 1}, {cols})"),
        (raised(w, gram=gram.astype(np.float16), **half), "gram", "float32", "float16"),
        (raised(w, gram=with_value(gram, 0, 1, np.nan), **half), "gram", "finite numbers", "1 NaN or infinite ones, the first at row 0, column 1"),
        (raised(w, gram=with_value(gram, 2, 2, -1.0), **half), "gram", "a diagonal of squares", "-1 at row and column 2"),
    ]:
        assert (error.tensor, error.expected, error.found) == (tensor, expected, found)
        assert str(error) == f"{tensor}: expected {expected}, found {found}"
    skewed = raised(w, gram=with_value(gram, 0, 1, 1e6), **half)
    assert skewed.tensor == "gram" and skewed.expected == "a symmetric matrix"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "wanda", "sparsity": 0.5}, "method wanda needs gram"),
        ({"method": "magnitude", "sparsity": 0.5, "gram": True}, "gram has no effect with method magnitude"),
        ({"gram": True}, "method activation-flow needs sparsity or pattern"),
        ({"method": "wanda", "gram": True}, "method wanda needs sparsity or pattern"),
        ({"effort": "best"}, "effort has no effect"),
        ({"sparsity": 0.5, "scope": "model"}, "scope has no effect on one matrix"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "pattern cannot be combined with sparsity"),
        ({"block_size": 0}, "block size must be between 1 and 1024, found 0"),
        ({"threads": 0}, "threads: 0 is not in 1..=1024"),
        ({"pattern": "2"}, "pattern: expected"),
        ({"sparsity": 0.5, "gram": True, "allow_nonfinite": True}, "allow_nonfinite has no effect with method activation-flow"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, w: Matrix, gram: Matrix
) -> None:
    if options.get("gram"):
        options = {**options, "gram": gram}
    with pytest.raises(physarium.UsageError) as caught:
        physarium.flow.prune_matrix(w, **options)
    assert str(caught.value).startswith(message), str(caught.value)
