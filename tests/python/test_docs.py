"""The example of docs/PYTHON.md runs as it is printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path


def test_the_example_runs_as_it_is_printed(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "PYTHON.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    shutil.copytree(root / "demo", tmp_path / "demo")
    script = "\n".join(blocks)
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "quality.png").stat().st_size > 5_000
