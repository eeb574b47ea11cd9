"""A folder with a model, and crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_potnet.models import build_model
from ase_potnet.pretrained import save_model

from .pair_model import save


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "pairs")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that other processes can load, too."""
    network = build_model("equivariant-potnet", {"width": 16, "message_width": (8, 4, 2), "n_sources": 2})
    return save_model(network, tmp_path_factory.mktemp("models") / "small", task="energy")


@pytest.fixture
def metals() -> list[Atoms]:
    """Twelve crystals near their equilibrium in the pair model."""
    rng = np.random.default_rng(5)
    made = []
    for number, symbol in enumerate(("Cu", "Ag", "Au", "Ni", "Pd", "Pt")):
        atoms = bulk(symbol, "fcc", a=4.0 + 0.03 * number, cubic=number % 2 == 0)
        made.append(atoms)
        rough = bulk(symbol, "fcc", a=4.1, cubic=True)
        rough.positions += 0.05 * rng.normal(size=rough.positions.shape)
        made.append(rough)
    return made
