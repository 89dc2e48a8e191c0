"""A run as units of work: plan, unit, work and finish."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import physarium
import pytest

from checkpoints import files

OPTIONS: dict[str, Any] = {"method": "magnitude", "sparsity": 0.5, "scope": "model"}


def test_units_one_by_one_give_the_output_of_prune(model: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    planned = physarium.plan(model, out, plan=plan, threads=1, card=True, **OPTIONS)
    units = json.loads(plan.read_text())["units"]
    assert (planned.plan, planned.units, planned.job) == (str(plan), len(units), None)
    assert planned.steps == 2 and planned.seconds > 0 and planned.memory_bytes > 0

    with pytest.raises(physarium.UsageError, match="units are not done"):
        physarium.finish(plan)
    with pytest.raises(physarium.UsageError, match="shard-00001 needs threshold"):
        physarium.unit(plan, "shard-00001")
    for unit in units:
        run = physarium.unit(plan, unit["id"])
        assert (run.unit, run.ended) == (unit["id"], "done")
    assert physarium.unit(plan, "threshold").ended == "done before"
    pruned = physarium.finish(plan)
    assert pruned.out == str(out) and pruned.pruned.elements > 0

    physarium.prune(model, tmp_path / "whole", card=True, **OPTIONS)
    assert files(out) == files(tmp_path / "whole")


def test_workers_share_the_units(model: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    physarium.plan(model, out, plan=plan, threads=1, **OPTIONS)
    runs: list[physarium.results.WorkerRun] = []
    events: list[physarium.progress.Event] = []

    def work(index: int) -> None:
        runs.append(physarium.work(plan, share=(index, 2), progress=events.append))

    workers = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [run.units for run in runs] == [3, 3] and sum(run.ran for run in runs) == 3
    names = [event["name"] for event in events if event["event"] == "run"]
    assert sorted(names) == ["shard-00001", "shard-00002", "threshold"]
    physarium.finish(plan, wait=True)
    physarium.prune(model, tmp_path / "whole", **OPTIONS)
    assert files(out) == files(tmp_path / "whole")


def test_another_worker_s_units_are_taken_over(model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    physarium.plan(model, tmp_path / "out", plan=plan, threads=1, **OPTIONS)
    run = physarium.work(plan, share=(1, 2), take_over_after=0)
    assert run.ran == run.units == 3


def test_what_does_not_fit(model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    with pytest.raises(physarium.UsageError, match="worker: expected a number below N"):
        physarium.work(plan, share=(2, 2))
    with pytest.raises(physarium.Error, match="plan of units of work") as caught:
        physarium.unit(model / "config.json", "threshold")
    assert caught.value.file == model / "config.json"
