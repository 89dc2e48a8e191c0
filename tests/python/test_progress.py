"""Events, the lock of Python, and how a run is stopped."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import physarium
import physarium.progress
import pytest

CALIBRATED: dict[str, Any] = {
    "method": "sparsegpt",
    "sparsity": 0.5,
    "calibration_tokens": 8192,
    "window": 256,
    "threads": 1,
}


def shards(out: Path) -> dict[str, bytes]:
    """The weights of an output."""
    return {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


def test_events_are_those_of_the_program(model: Path, half: Path) -> None:
    events: list[physarium.progress.Event] = []
    physarium.audit(half, against=model, progress=events.append)
    command = [sys.executable, "-m", "physarium", "audit", str(half), "--against", str(model)]
    ended = subprocess.run(
        [*command, "--progress", "json"], capture_output=True, text=True, check=True
    )
    expected = [json.loads(line) for line in ended.stderr.splitlines()]

    def ends(events: list[Any]) -> list[Any]:
        kept = [event for event in events if event["event"] in ("started", "finished")]
        return [{key: event[key] for key in event if key != "seconds"} for event in kept]

    assert ends(events) == ends(expected) and len(ends(events)) == 2
    assert events[-1]["bytes"] == events[-1]["total_bytes"] > 0


def test_events_come_on_the_thread_of_the_call(model: Path, half: Path) -> None:
    threads = set()
    physarium.verify(half, against=model, progress=lambda _: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_notes_are_logged_and_spelled_as_in_python(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING, "physarium"):
        physarium.prune(model, tmp_path / "out", sparsity=1.0)
    assert "sparsity 1 prunes every weight of the targets" in caplog.messages
    assert capfd.readouterr().out == ""


def test_the_adapter_for_tqdm(model: Path, tmp_path: Path) -> None:
    with (tmp_path / "bar").open("w") as file:
        bar = physarium.progress.tqdm(file=file, mininterval=0)
        physarium.prune(model, tmp_path / "out", progress=bar, **CALIBRATED)
    shown = (tmp_path / "bar").read_text()
    assert "calibrate: 100%" in shown and "prune: 100%" in shown


def test_other_threads_run_while_a_call_works(model: Path, tmp_path: Path) -> None:
    ticks, done = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += 1

    other = threading.Thread(target=tick)
    other.start()
    physarium.prune(model, tmp_path / "out", **CALIBRATED)
    done.set()
    other.join()
    # With the lock held it would be one or two.
    assert ticks > 20


def test_calls_run_side_by_side(model: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    calls = [
        threading.Thread(target=physarium.prune, args=(model, out), kwargs={"sparsity": 0.5})
        for out in outs
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert shards(outs[0]) == shards(outs[1]) != {}


def test_an_exception_of_the_listener_stops_the_run(model: Path, tmp_path: Path) -> None:
    def listen(event: physarium.progress.Event) -> None:
        if event["event"] == "progress" and event["task"] == "calibrate":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        physarium.prune(model, tmp_path / "out", progress=listen, **CALIBRATED)
    cause = caught.value.__cause__
    assert isinstance(cause, physarium.Interrupted) and cause.file is not None
    assert cause.file.is_dir() and not (tmp_path / "out").exists()


INTERRUPTED = """
import os, signal, sys
import physarium

# A shell's background jobs ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def listen(event):
    if event["event"] == "progress" and event["task"] == "calibrate" and event["layer"] > 1:
        os.kill(os.getpid(), signal.SIGINT)

model, out, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
try:
    physarium.prune(model, out, progress=listen, **options)
except KeyboardInterrupt as e:
    assert isinstance(e.__cause__, physarium.Interrupted), e.__cause__
    assert e.__cause__.file.is_dir()
    raise
"""


def test_ctrl_c_stops_a_run_that_is_then_resumed(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTED, str(model), str(out), repr(CALIBRATED)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert "KeyboardInterrupt" in ended.stderr and not (tmp_path / "out").exists()

    events: list[physarium.progress.Event] = []
    physarium.prune(model, tmp_path / "out", progress=events.append, **CALIBRATED)
    resumed = [event for event in events if event["event"] == "resumed"]
    assert len(resumed) == 1 and 1 <= resumed[0]["layers"] < resumed[0]["of"]
    physarium.prune(model, tmp_path / "whole", **CALIBRATED)
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")


# Tokens that an evaluation scores at once, at most.
BATCH = 8192


def test_ctrl_c_keeps_a_part_of_an_evaluation(model: Path, text: Path, tmp_path: Path) -> None:
    def listen(event: physarium.progress.Event) -> None:
        if event["event"] == "progress" and event["tokens"] > BATCH:
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    long = tmp_path / "long.txt"
    long.write_text(text.read_text() * 8)
    with pytest.raises(KeyboardInterrupt) as caught:
        physarium.evaluate(model, text=long, window=256, threads=1, progress=listen)
    cause = caught.value.__cause__
    assert isinstance(cause, physarium.Interrupted)
    assert cause.result is not None and cause.result["partial"] and cause.result["windows"] > 0
