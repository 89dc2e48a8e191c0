"""The units of a plan on a real Ray cluster of three nodes give the output of ``physarium.prune``."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import physarium
import physarium.progress
import physarium.ray
import psutil
import pytest
from ray.cluster_utils import Cluster

import ray_cluster
from checkpoints import files
from ray_cluster import Meanwhile

METHODS: dict[str, dict[str, Any]] = {
    "magnitude-flow": {},
    "wanda": {"sparsity": 0.5, "calibration_tokens": 9216, "window": 256},
    "activation-flow": {"sparsity": 0.5, "calibration_tokens": 9216, "window": 256},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes with one processor each."""
    with ray_cluster.cluster(nodes=3) as started:
        yield started


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No test runs for ever."""
    with ray_cluster.at_most(240):
        yield


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of the output of each method."""
    dir = tmp_path_factory.mktemp("whole")
    outputs = {}
    for method, options in METHODS.items():
        physarium.prune(model, dir / method, method=method, threads=1, **options)  # type: ignore[arg-type]
        outputs[method] = files(dir / method)
    return outputs


def planned(
    model: Path, tmp_path: Path, method: str = "activation-flow", threads: int = 1, force: bool = False
) -> Path:
    """A plan with the output ``tmp_path / "out"``."""
    plan = tmp_path / "plan.json"
    options: dict[str, Any] = {"method": method, "force": force, **METHODS[method]}
    physarium.plan(model, tmp_path / "out", plan=plan, threads=threads, **options)
    return plan


@pytest.mark.parametrize("method", METHODS)
def test_an_undisturbed_run(
    method: str, cluster: Cluster, model: Path, expected: Any, tmp_path: Path
) -> None:
    plan = planned(model, tmp_path, method)
    events: list[physarium.progress.Event] = []
    pruned = physarium.ray.prune(plan, progress=events.append)
    assert pruned.out == str(tmp_path / "out") and pruned.pruned.elements > 0
    assert files(tmp_path / "out") == expected[method]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plan.json"]
    kinds = [event["event"] for event in events]
    units = events[-1]["total_steps"]
    assert kinds == ["started", *["progress"] * units, "finished"]
    assert len({event["name"] for event in events[1:-1]}) == units == events[-1]["steps"]


def test_a_lost_node(cluster: Cluster, model: Path, expected: Any, tmp_path: Path) -> None:
    plan = planned(model, tmp_path)
    node = next(iter(cluster.worker_nodes))
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)

    def lose() -> None:
        ray_cluster.stopped_in_a_unit(lambda: raylet.children(recursive=True)).kill()
        cluster.remove_node(node, allow_graceful=False)

    # Nodes can be added on the main thread only, as signal handlers can.
    def replace(_: physarium.progress.Event) -> None:
        if len(cluster.worker_nodes) == 1:
            cluster.add_node(**ray_cluster.NODE)

    with Meanwhile(lose):
        physarium.ray.prune(plan, progress=replace)
    assert len(cluster.worker_nodes) == 2 and node not in cluster.worker_nodes
    assert files(tmp_path / "out") == expected["activation-flow"]


def test_a_preempted_task(cluster: Cluster, model: Path, expected: Any, tmp_path: Path) -> None:
    plan = planned(model, tmp_path)
    with Meanwhile(lambda: ray_cluster.stopped_in_a_unit(workers).kill()):
        physarium.ray.prune(plan)
    assert files(tmp_path / "out") == expected["activation-flow"]


def test_a_task_that_is_lost_each_time(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    plan = planned(model, tmp_path)
    with (
        Meanwhile(lambda: ray_cluster.stopped_in_a_unit(workers).kill()),
        pytest.raises(physarium.ResourceError, match="after at most 0 retries") as caught,
    ):
        physarium.ray.prune(plan, retries=0)
    assert caught.value.file == plan and caught.value.found == "WorkerCrashedError"


def test_another_process_that_runs_the_same_units(
    cluster: Cluster, model: Path, expected: Any, tmp_path: Path
) -> None:
    plan = planned(model, tmp_path)
    listen = "lambda event: print(event['event'], event.get('name'), flush=True)"
    script = f"import physarium; physarium.work({str(plan)!r}, progress={listen})"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert any(line.startswith("run ") for line in other.stdout)
            physarium.ray.prune(plan)
        finally:
            other.kill()
        rest = [line for line in other.stdout if line.startswith("run ")]
    assert rest
    assert files(tmp_path / "out") == expected["activation-flow"]


def test_ctrl_c_and_the_same_call_again(
    cluster: Cluster, model: Path, expected: Any, tmp_path: Path
) -> None:
    plan = planned(model, tmp_path)

    def interrupt() -> None:
        worker = ray_cluster.stopped_in_a_unit(workers)
        ray_cluster.interrupt()
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()

    # Where a shell started this in the background, Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before: list[physarium.progress.Event] = []
    with pytest.raises(KeyboardInterrupt), Meanwhile(interrupt):
        physarium.ray.prune(plan, progress=before.append)
    assert not (tmp_path / "out").exists()
    assert ray_cluster.wait_until(lambda: not any(map(ray_cluster.is_in_a_unit, workers())), 30)

    physarium.ray.prune(plan)
    assert files(tmp_path / "out") == expected["activation-flow"]


def workers() -> list[psutil.Process]:
    """All workers that have a task."""
    return ray_cluster.processes("ray::")


def test_an_error_of_a_unit_is_that_of_the_package(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    plan = planned(copy, tmp_path, "magnitude-flow")
    with (copy / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(physarium.InputChangedError) as caught:
        physarium.ray.prune(plan)
    with pytest.raises(physarium.InputChangedError) as alone:
        physarium.unit(plan, "shard-00001")
    assert type(caught.value) is physarium.InputChangedError
    assert str(caught.value) == str(alone.value)
    assert vars(caught.value) == vars(alone.value)
    assert caught.value.file == copy / "config.json"


def test_a_cluster_that_is_too_small_is_refused_at_once(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    plan = planned(model, tmp_path, "magnitude-flow", threads=2)
    with pytest.raises(physarium.ResourceError) as caught:
        physarium.ray.prune(plan)
    assert str(caught.value.expected).startswith("a node with 2 processors and ")
    assert caught.value.found == f"nodes with 1 processors and {4 << 30} bytes"


def test_an_output_that_exists_is_refused_before_the_work(
    cluster: Cluster, model: Path, expected: Any, tmp_path: Path
) -> None:
    plan = planned(model, tmp_path, "magnitude-flow")
    physarium.ray.prune(plan)
    with pytest.raises(physarium.OutputError) as caught:
        physarium.ray.prune(plan)
    assert caught.value.file == tmp_path / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plan.json"]
    physarium.ray.prune(plan, force=True)
    assert files(tmp_path / "out") == expected["magnitude-flow"]


def test_a_forced_plan_replaces_the_output_that_it_found_once(
    cluster: Cluster, model: Path, expected: Any, tmp_path: Path
) -> None:
    physarium.prune(model, tmp_path / "out", method="magnitude", sparsity=0.25)
    with pytest.raises(physarium.OutputError):
        planned(model, tmp_path, "magnitude-flow")
    plan = planned(model, tmp_path, "magnitude-flow", force=True)
    physarium.ray.prune(plan)
    assert files(tmp_path / "out") == expected["magnitude-flow"]
    with pytest.raises(physarium.OutputError):
        physarium.ray.prune(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plan.json"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "no JSON"),
        ("[]", "None"),
        ('{"schema": "physarium.units/2"}', "'physarium.units/2'"),
        ('{"schema": "physarium.units/1"}', "KeyError: 'units'"),
        (
            '{"schema": "physarium.units/1", "units": [{"id": "a", "needs": ["b"]}]}',
            "ValueError: a needs b",
        ),
        (None, "No such file"),
    ],
)
def test_what_is_not_a_plan(text: str | None, found: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    if text is not None:
        plan.write_text(text)
    with pytest.raises(physarium.InputError) as caught:
        physarium.ray.prune(plan)
    assert caught.value.file == plan and str(caught.value.found).startswith(found)


def test_the_recipe_of_the_guide_runs_as_it_is_printed(
    cluster: Cluster, root: Path, expected: Any, tmp_path: Path
) -> None:
    text = (root / "docs" / "UNITS.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shutil.copytree(root / "demo", tmp_path / "demo")
    ended = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert files(tmp_path / "half") == expected["activation-flow"]
