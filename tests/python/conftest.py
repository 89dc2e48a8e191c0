"""The bundled demo model, and outputs that several tests read."""

from __future__ import annotations

from pathlib import Path

import physarium
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def model() -> Path:
    """The bundled model."""
    return ROOT / "demo" / "model"


@pytest.fixture(scope="session")
def text() -> Path:
    """A text that the bundled model was not trained on."""
    return ROOT / "demo" / "heldout.txt"


@pytest.fixture(scope="session")
def half(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with half of each tensor's targets pruned by magnitude."""
    out = tmp_path_factory.mktemp("half") / "half"
    physarium.prune(model, out, method="magnitude", sparsity=0.5)
    return out
