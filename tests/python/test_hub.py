"""Downloads from a hub on this machine, by the real package huggingface_hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fake_hub
from fake_hub import COMMIT, Hub

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = {
    "README.md": b"# Demo\n",
    "pytorch_model.bin": b"bin",
    "model.pth": b"pth",
    "model.gguf": b"gguf",
    "consolidated.safetensors": b"the same weights in another layout",
    "onnx/model.safetensors": b"the same weights elsewhere",
}


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    """A hub with the bundled model, and files that physarium does not read."""
    with fake_hub.serve(model, **OTHERS) as hub:
        yield hub


def ran(script: str, hub: Hub, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a script printed that uses the hub; huggingface_hub reads its environment once."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    hub_only = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", f"import json\nimport physarium\nimport physarium.hub\n{script}"],
        env={**given, **hub_only, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


DOWNLOAD = "print(physarium.hub.download('org/demo'))"


def test_a_model_is_found_by_its_id(hub: Hub, model: Path, tmp_path: Path) -> None:
    script = "found = physarium.inspect('org/demo')\nprint(json.dumps(found.to_dict()))"
    ended = ran(f"{DOWNLOAD}\n{script}", hub, tmp_path)
    assert ended.returncode == 0, ended.stderr
    dir, inspection = ended.stdout.splitlines()
    snapshot = tmp_path / "hub" / "models--org--demo" / "snapshots" / COMMIT
    assert Path(dir) == snapshot
    expected = {path.name: path.read_bytes() for path in model.iterdir()}
    found = {path.name: path.read_bytes() for path in snapshot.iterdir()}
    assert found == {**expected, "README.md": OTHERS["README.md"]}
    source: Any = json.loads(inspection)["source"]
    assert source == {"hub": "org/demo", "revision": "main", "commit": COMMIT}
    assert hub.sent.keys() == found.keys()


@pytest.mark.parametrize("arguments", ["'org/demo', 'v1'", "'org/demo', revision='v1'", "'org/demo@v1'"])
def test_a_revision(arguments: str, hub: Hub, tmp_path: Path) -> None:
    script = f"physarium.hub.download({arguments})\nprint(physarium.inspect('org/demo', revision='v1').source)"
    ended = ran(script, hub, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"hub='org/demo', commit='{COMMIT}', revision='v1'" in ended.stdout
    refs = tmp_path / "hub" / "models--org--demo" / "refs"
    assert [path.name for path in refs.iterdir()] == ["v1"]


def test_a_connection_that_ends_in_the_middle_of_a_file(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.cut = {SHARDS[0]}
    # It resumes at the last whole chunk that it has received; by default one is larger than the model.
    chunks = "import huggingface_hub.constants as hf; hf.DOWNLOAD_CHUNK_SIZE = 65536"
    ended = ran(f"{chunks}\n{DOWNLOAD}", hub, tmp_path)
    assert ended.returncode == 0, ended.stderr
    received = (model / SHARDS[0]).stat().st_size // 2 // 65536 * 65536
    assert hub.ranges == [f"{SHARDS[0]} bytes={received}-"]
    assert (Path(ended.stdout.strip()) / SHARDS[0]).read_bytes() == (model / SHARDS[0]).read_bytes()


def test_the_same_call_resumes_an_interrupted_download(hub: Hub, tmp_path: Path) -> None:
    hub.broken = {SHARDS[1]}
    ended = ran(DOWNLOAD, hub, tmp_path)
    assert ended.returncode == 1 and "403" in ended.stderr
    before = hub.sent.copy()
    hub.broken.clear()
    ended = ran(DOWNLOAD, hub, tmp_path)
    assert ended.returncode == 0, ended.stderr
    # Files that were complete are not sent again.
    again = {name for name in before if hub.sent[name] != before[name]}
    assert again == set() and hub.sent[SHARDS[1]] == len(hub.files[SHARDS[1]])


def test_offline(hub: Hub, tmp_path: Path) -> None:
    ended = ran(DOWNLOAD, hub, tmp_path, HF_HUB_OFFLINE="1")
    assert ended.returncode == 1
    assert "LocalEntryNotFoundError" in ended.stderr and "HF_HUB_OFFLINE" in ended.stderr
    assert ran(DOWNLOAD, hub, tmp_path).returncode == 0
    there = ran(DOWNLOAD, hub, tmp_path, HF_HUB_OFFLINE="1")
    assert there.returncode == 0 and there.stdout.strip().endswith(COMMIT)


def test_what_there_is_not(hub: Hub, tmp_path: Path) -> None:
    ended = ran("physarium.hub.download('org/other')", hub, tmp_path)
    assert ended.returncode == 1 and "RepositoryNotFoundError" in ended.stderr
    ended = ran("physarium.hub.download('org/demo@v1', 'main')", hub, tmp_path)
    assert "UsageError: revision cannot be combined with @v1" in ended.stderr
    hub.files["model.safetensors.index.json"] = b"[]"
    ended = ran(DOWNLOAD, hub, tmp_path)
    assert "physarium.errors.InputError" in ended.stderr and "weight_map" in ended.stderr


def test_the_package_and_the_program_load_no_hub() -> None:
    script = "import sys, physarium.__main__; print('huggingface_hub' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
