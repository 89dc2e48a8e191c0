"""``python -m physarium`` and the command ``physarium`` are the program."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MODULE = [sys.executable, "-m", "physarium"]
COMMAND = [str(Path(sys.executable).with_name("physarium"))]


@pytest.mark.parametrize("program", [MODULE, COMMAND])
def test_it_prints_and_ends_as_the_program_does(program: list[str], root: Path) -> None:
    def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *arguments], capture_output=True, text=True, check=False, cwd=root
        )

    version = ended("--version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "physarium")
    inspected = ended("inspect", "demo/model")
    assert inspected.returncode == 0 and "target" in inspected.stdout
    wrong = ended("inspect", "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: nowhere")
    unknown = ended("inspect", "demo/model", "--sparsity", "1")
    assert unknown.returncode == 2 and "--sparsity" in unknown.stderr
    false = ended("audit", "demo/model", "--against", "demo/model", "--claims", "demo/claims.toml")
    assert false.returncode == 1


def test_a_closed_pipe_is_no_failure(root: Path) -> None:
    command = " ".join(MODULE) + " inspect demo/model --tensors | head -1; echo ${PIPESTATUS[0]}"
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, cwd=root
    )
    assert ended.stdout.splitlines()[-1] == "0" and ended.stderr == ""


def test_ctrl_c_does_what_the_program_does(model: Path, tmp_path: Path) -> None:
    arguments = ["prune", str(model), "--out", str(tmp_path / "out"), "--method", "sparsegpt"]
    arguments += ["--sparsity", "0.5", "--threads", "1", "--window", "256", "--progress", "json"]
    with subprocess.Popen([*MODULE, *arguments], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        line = next(line for line in run.stderr if '"calibrate"' in line)
        assert "started" in line
        time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
    assert run.returncode == 130, rest
    assert "to resume: " in rest and "physarium prune" in rest and "Traceback" not in rest
    assert not (tmp_path / "out").exists()
