"""The examples of the guide and of README.md run as they are printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("page", "blocks"), [("docs/PYTHON.md", 6), ("README.md", 1)])
def test_the_examples_run_as_they_are_printed(
    page: str, blocks: int, root: Path, tmp_path: Path
) -> None:
    text = (root / page).read_text()
    found = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # What other programs do with an output is not tested here.
    found = [block for block in found if "transformers" not in block]
    assert len(found) == blocks
    shutil.copytree(root / "demo", tmp_path / "demo")
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(found)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    if page == "docs/PYTHON.md":
        assert (tmp_path / "quality.png").stat().st_size > 5_000
