"""The property head on the energy backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell

from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model, model_name

SMALL = {"width": 16, "message_width": (8, 4, 2), "n_sources": 2}


@pytest.fixture(scope="module")
def model(random_network: Callable[..., Any]) -> torch.nn.Module:
    return random_network("equivariant-properties", **SMALL, n_targets=2)


def crystals() -> list[Atoms]:
    found = [bulk("NaCl", "rocksalt", a=5.6), bulk("ZnO", "wurtzite", a=3.25, c=5.2), bulk("Cu", "fcc", a=3.6)]
    for atoms in found:
        atoms.rattle(0.05, rng=np.random.default_rng(0))
    return found


def test_one_row_a_structure_whatever_the_batch(model: torch.nn.Module) -> None:
    with torch.no_grad():
        together = model(batch_structures(crystals()))
        alone = torch.cat([model(batch_structures(atoms)) for atoms in crystals()])
    assert together.shape == (3, 2)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_a_supercell_has_the_same_properties(model: torch.nn.Module) -> None:
    cells = [make_supercell(atoms, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]]) for atoms in crystals()]
    with torch.no_grad():
        torch.testing.assert_close(
            model(batch_structures(cells)), model(batch_structures(crystals())), rtol=1e-9, atol=1e-9
        )


def test_it_takes_over_the_weights_of_a_potential(model: torch.nn.Module) -> None:
    potential = build_model("equivariant-potnet", SMALL)
    own = model.state_dict()
    assert all(own[name].shape == value.shape for name, value in potential.state_dict().items())
    assert model_name(model) == "equivariant-properties"


def test_every_parameter_of_the_head_learns(model: torch.nn.Module) -> None:
    model(batch_structures(crystals())).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("head", "atom_head", "from_energy", "norm", "layers")):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
