"""The weights that come with the package: whole, small, honestly described, and physically sane."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.eos import EquationOfState

from ase_potnet import PotNetCalculator, evaluate, list_models, load_model, predict
from ase_potnet.pretrained import model_info

POTENTIALS = [name for name in list_models() if model_info(name).task == "energy"]
# lattice constant, Å, of PBE (Materials Project), and how far a small potential may be off
CRYSTALS = {
    "NaCl": ("rocksalt", 5.69),
    "MgO": ("rocksalt", 4.25),
    "Si": ("diamond", 5.47),
    "Cu": ("fcc", 3.62),
    "Al": ("fcc", 4.04),
    "Fe": ("bcc", 2.84),
    "GaAs": ("zincblende", 5.75),
    "CsCl": ("cesiumchloride", 4.21),
}
# energy of the free atoms above the crystal, eV/atom, PBE (of the teacher of the packaged potential)
COHESIVE = {"Si": 4.53, "Cu": 3.48, "Fe": 4.82, "Al": 3.43, "W": 8.29, "K": 0.86, "NaCl": 3.08}


def test_the_default_model_is_packaged() -> None:
    assert "default" in POTENTIALS


@pytest.mark.parametrize("name", list_models())
def test_the_card_tells_what_the_model_is(name: str) -> None:
    info = model_info(name)
    for heading in ("## Data", "## Training", "## Errors", "## Limits", "## Licence"):
        assert heading in info.card, heading
    assert info.metadata["validation"]
    if info.task == "energy":
        assert "distilled" in info.card.lower()
        assert "teacher" in info.card.lower()


@pytest.mark.parametrize("name", list_models())
def test_the_weights_are_small_and_load(name: str) -> None:
    load_model(name)
    assert (model_info(name).folder / "weights.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("formula", CRYSTALS)
def test_lattice_constants(name: str, formula: str) -> None:
    """A minimum of the energy within 3 % of the lattice constant of PBE, and a positive bulk modulus."""
    kind, a = CRYSTALS[formula]
    crystals = [bulk(formula, kind, a=a * (1 + strain)) for strain in np.linspace(-0.06, 0.06, 13)]
    energies = [result.energy for result in evaluate(crystals, name)]
    volumes = [atoms.get_volume() for atoms in crystals]
    lowest = int(np.argmin(energies))
    assert 2 <= lowest <= 10, "no minimum near the lattice constant"
    near = slice(max(0, lowest - 3), lowest + 4)
    volume, _, modulus = EquationOfState(volumes[near], energies[near]).fit()
    assert (volume / crystals[6].get_volume()) ** (1 / 3) == pytest.approx(1.0, abs=0.03)
    assert modulus > 0


@pytest.mark.parametrize("name", POTENTIALS)
@pytest.mark.parametrize("formula", COHESIVE)
def test_cohesive_energies(name: str, formula: str) -> None:
    """Of PBE within 0.15 eV/atom; and a crystal blown up rises to its free atoms, in the end as London's r^-6."""
    crystal = bulk(formula, "rocksalt", a=5.69) if formula == "NaCl" else bulk(formula)
    free = sum(result.energy for result in evaluate([Atoms([number]) for number in crystal.numbers], name))
    scales = np.append(np.linspace(1.0, 3.2, 40), 20.0)
    blown = [crystal.copy() for _ in scales]
    for atoms, scale in zip(blown, scales, strict=True):
        atoms.set_cell(crystal.cell * scale, scale_atoms=True)
    energies = (np.array([result.energy for result in evaluate(blown, name)]) - free) / len(crystal)
    assert energies[0] == pytest.approx(-COHESIVE[formula], abs=0.15)
    assert energies[-2] == pytest.approx(0, abs=0.01)
    assert energies[-1] == pytest.approx(0, abs=1e-6)
    assert energies.argmin() < 4
    assert energies.max() < 0.5


@pytest.mark.parametrize("name", POTENTIALS)
def test_forces_push_displaced_atoms_back(name: str) -> None:
    for formula, (kind, a) in CRYSTALS.items():
        atoms = bulk(formula, kind, a=a).repeat(2)
        atoms.calc = PotNetCalculator(name)
        atoms.positions[0] += [0.1, 0.0, 0.0]
        assert atoms.get_forces()[0, 0] < 0, formula


@pytest.mark.parametrize("name", POTENTIALS)
def test_compressed_atoms_repel(name: str) -> None:
    """Down to seven tenths of the lattice constant, a third of the volume, the energy rises all the way."""
    for formula, (kind, a) in CRYSTALS.items():
        crystals = [bulk(formula, kind, a=a * scale) for scale in (0.9, 0.8, 0.7)]
        energies = [result.energy for result in evaluate(crystals, name)]
        assert (np.diff(energies) > 0).all(), formula


@pytest.mark.parametrize("name", POTENTIALS)
def test_unknown_elements_are_refused(name: str) -> None:
    atoms = Atoms("Fm", positions=[[0, 0, 0]], calculator=PotNetCalculator(name))
    with pytest.raises(ValueError, match="Fm"):
        atoms.get_potential_energy()


def test_formation_energies_have_the_right_sign() -> None:
    stable = [bulk("NaCl", "rocksalt", a=5.6), bulk("MgO", "rocksalt", a=4.22)]
    assert all(value < -1.0 for value in predict(stable, "formation_energy_per_atom"))
