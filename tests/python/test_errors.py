"""Exceptions have a kind and the parts of their message."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import physarium
import pytest
from physarium import _physarium

import checkpoints

UP = "model.layers.0.mlp.up_proj.weight"


def raised(kind: type[physarium.Error], *arguments: Any, **options: Any) -> physarium.Error:
    """The exception of a call of ``prune``."""
    with pytest.raises(kind) as caught:
        physarium.prune(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


def test_a_malformed_file(tmp_path: Path) -> None:
    model = checkpoints.write(tmp_path / "m", {UP: np.ones((4, 4), np.float32)})
    shard = model / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    error = raised(physarium.InputError, model, tmp_path / "out")
    assert error.file == shard and error.expected is not None and error.found is not None
    assert error.expected in str(error) and error.found in str(error)
    assert not (tmp_path / "out").exists()


def test_a_tensor_with_nan(tmp_path: Path) -> None:
    weights = np.ones((4, 4), np.float32)
    weights[1, 2] = np.nan
    model = checkpoints.write(tmp_path / "m", {UP: weights})
    error = raised(physarium.InputError, model, tmp_path / "out")
    assert error.file == model / "model.safetensors" and error.tensor == UP
    assert (error.expected, error.found) == ("finite weights", "1 NaN or infinite weights")
    assert "row 1, column 2" in str(error) and "allow_nonfinite" in str(error)
    assert physarium.prune(model, tmp_path / "out", allow_nonfinite=True).non_finite == 1


def test_an_output_that_exists(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    error = raised(physarium.OutputError, model, tmp_path / "out")
    assert error.file == tmp_path / "out" and error.expected and error.found


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    error = raised(physarium.InputError, tmp_path / "none", tmp_path / "out")
    assert error.file == tmp_path / "none" and error.tensor is None
    assert (error.expected, error.found) == (
        "a directory, or the id of a model of the hub",
        "nothing there",
    )


def test_too_little_memory(model: Path, tmp_path: Path) -> None:
    error = raised(physarium.ResourceError, model, tmp_path / "out", memory="1kB")
    assert error.found == "1000 bytes" and str(error.expected).endswith(" bytes")


def test_nothing_to_prune(tmp_path: Path) -> None:
    model = checkpoints.write(tmp_path / "m", {"other": np.ones((4, 4), np.float32)})
    error = raised(physarium.UnsupportedError, model, tmp_path / "out")
    assert error.file == model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.5, "pattern": "2:4"}, "pattern cannot be combined with sparsity"),
        ({"method": "wanda"}, "method wanda needs sparsity or pattern or price"),
        ({"effort": "best"}, "effort has no effect: the method does not use calibration"),
        ({"iterations": 9, "sparsity": 0.5}, "iterations has no effect: sparsity sets"),
        ({"calibration": "t.txt"}, "calibration has no effect: the method does not"),
        ({"recipe": "r.toml", "skip": "*"}, "recipe cannot be combined with skip"),
        ({"block_size": 0}, "block size must be between 1 and 1024, found 0"),
        ({"target": "nothing*"}, "target nothing*: matches no tensor"),
        ({"force": "yes"}, "force: expected"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    error = raised(physarium.UsageError, model, tmp_path / "out", **options)
    assert str(error).startswith(message), str(error)
    assert isinstance(error, ValueError) and "--" not in str(error)


def test_values_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    error = raised(physarium.UsageError, model, tmp_path / "out", method="wonder")
    assert error.expected is not None and "wanda" in error.expected
    assert error.found == "'wonder'"
    error = raised(physarium.UsageError, model, tmp_path / "out", sparsity=1.5)
    assert (error.expected, str(error).split(",")[0]) == (
        "between 0 and 1",
        "sparsity: expected between 0 and 1",
    )
    assert error.found is not None and error.found.startswith("1.5")
    with pytest.raises(TypeError, match="sparsity: expected text, a number or a path, found dict"):
        physarium.prune(model, tmp_path / "out", sparsity={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sparsty"):
        physarium.prune(model, tmp_path / "out", sparsty=0.5)  # type: ignore[call-arg]


def test_options_of_an_evaluation_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    with pytest.raises(physarium.UsageError, match="per_item has no effect without choices"):
        physarium.evaluate(model, text=tmp_path / "t", per_item=tmp_path / "items")


def test_an_unfinished_output(model: Path, tmp_path: Path) -> None:
    with pytest.raises(physarium.Error) as caught:
        physarium.unpack(model / "config.json", tmp_path / "out")
    assert isinstance(caught.value, physarium.InputError)
    assert caught.value.file == model / "config.json"


def test_a_name_that_is_no_unicode(model: Path, tmp_path: Path) -> None:
    odd = Path(str(tmp_path) + "/m\udcff")
    error = raised(physarium.InputError, odd, tmp_path / "out")
    assert error.file is not None and "\udcff" in str(error.file)
    shutil.copytree(model, odd)
    assert physarium.inspect(odd).target.tensors > 0


def test_a_panic_is_an_exception() -> None:
    with pytest.raises(physarium.Panic, match="defect in physarium: on purpose"):
        _physarium.provoke_panic("on purpose")
    assert issubclass(physarium.Panic, Exception)


@pytest.mark.parametrize(
    "error",
    [getattr(physarium, name) for name in physarium.__all__ if name[0].isupper()],
)
def test_exceptions_can_be_pickled(error: type[physarium.Error], tmp_path: Path) -> None:
    parts: dict[str, Any] = {"file": tmp_path, "tensor": UP, "expected": "one", "found": "two"}
    made = error("a message", **parts)
    copy = pickle.loads(pickle.dumps(made))
    assert (type(copy), str(copy)) == (error, "a message")
    assert {name: getattr(copy, name) for name in parts} == parts


def test_the_part_of_a_result_is_pickled() -> None:
    made = physarium.Interrupted("a message")
    made.result = {"partial": True}
    assert pickle.loads(pickle.dumps(made)).result == made.result
