"""torch-sim: its own validator, and the same results as the calculator's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.stress import full_3x3_to_voigt_6_stress

from ase_potnet import evaluate
from ase_potnet.models import build_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit.script, in neighbour lists that are not used here
    ts: Any = pytest.importorskip("torch_sim", reason="torch-sim is not installed: pip install torch-sim-atomistic")
    from torch_sim.models.interface import validate_model_outputs

    from ase_potnet.integrations.torch_sim import PotNetModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_model("equivariant-potnet", {"width": 16, "message_width": (8, 4, 2), "n_sources": 2}).double()


def crystals() -> list[Atoms]:
    skewed = bulk("NaCl", "rocksalt", a=5.6)
    skewed.set_cell(skewed.cell.array @ [[1.0, 0.1, 0.0], [0.0, 1.0, -0.05], [0.02, 0.0, 1.0]], scale_atoms=True)
    made = [skewed, bulk("Cu", cubic=True), bulk("Po", "sc", a=3.3)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_validator_of_torch_sim(network: torch.nn.Module, dtype: torch.dtype) -> None:
    validate_model_outputs(PotNetModel(network, device="cpu", dtype=dtype), CPU, dtype)


def test_results_are_those_of_evaluate(network: torch.nn.Module) -> None:
    model = PotNetModel(network, device="cpu", dtype="float64")
    found = model(ts.io.atoms_to_state(crystals(), CPU, torch.float64))
    forces = found["forces"].split([len(atoms) for atoms in crystals()])
    for n, result in enumerate(evaluate(crystals(), network, device="cpu")):
        assert result.forces is not None
        assert result.stress is not None
        assert float(found["energy"][n]) == pytest.approx(result.energy, abs=1e-9)
        np.testing.assert_allclose(forces[n].numpy(), result.forces, atol=1e-9)
        np.testing.assert_allclose(full_3x3_to_voigt_6_stress(found["stress"][n].numpy()), result.stress, atol=1e-10)


def test_what_is_not_wanted_is_not_there(network: torch.nn.Module) -> None:
    model = PotNetModel(network, device="cpu", compute_forces=False, compute_stress=False)
    assert set(model(ts.io.atoms_to_state(crystals(), CPU, torch.float64))) == {"energy"}
    slab = bulk("Cu", cubic=True)
    slab.pbc = False
    model.compute_stress = True
    found = model(ts.io.atoms_to_state([slab], CPU, torch.float64))
    assert torch.isnan(found["stress"]).all()


def test_wrong_arguments(network: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="dtype: wanted"):
        PotNetModel(network, device="cpu", dtype=torch.float16)
    with pytest.raises(ValueError, match="model"):
        PotNetModel("no-such-model", device="cpu")
