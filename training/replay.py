"""Frames against forgetting: crystals of all kinds, labelled by the model that a fine-tuning starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from torch import nn

from .arrays import REPLAY_KIND, StructureArrays, join_arrays, structure_arrays
from .data import Record
from .evaluation import predict_arrays, predict_energies
from .labelling.perturb import apply, too_close
from .labelling.recipe import Kind
from .recipe import ReplayConfig
from .sources import TrainingData, read

_PERTURBATION = Kind(volume=(0.92, 1.12), shear=0.02, sigma=(0.01, 0.15))
_MOST_ATOMS = 64  # of a crystal from a file
_LARGEST_FORCE = 5.0  # eV/Å; beyond, a random crystal is too far from any real one
_LARGEST_STRESS = 0.15  # eV/Å^3, likewise
_SHORTEST = 1.4  # Å, bond of a crystal of small atoms
_NEAREST = 0.9  # Å, after perturbation
_ANIONS = [atomic_numbers[symbol] for symbol in ("N", "O", "F", "P", "S", "Cl", "Se", "Br", "Te", "I")]


@dataclass(frozen=True)
class CrystalType:
    """A crystal type of lattice constant 1.

    cell: rows are lattice vectors
    sites: fractional coordinates
    species: of every site, from 0
    contacts: pairs of species that touch, with their distance
    """

    cell: tuple[tuple[float, ...], ...]
    sites: tuple[tuple[float, ...], ...]
    species: tuple[int, ...]
    contacts: tuple[tuple[int, int, float], ...]

    def crystal(self, numbers: list[int]) -> Atoms:
        """The crystal of these elements: atoms touch by their covalent radii, and are 1.4 Å apart at least."""
        radii = [covalent_radii[number] for number in numbers]
        a = max(max(radii[i] + radii[j], _SHORTEST) / distance for i, j, distance in self.contacts)
        elements = [numbers[species] for species in self.species]
        return Atoms(elements, scaled_positions=self.sites, cell=a * np.array(self.cell), pbc=True)


_CUBIC = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
_BCC = ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5))
_ORIGIN, _CENTRE, _QUARTER = (0.0,) * 3, (0.5,) * 3, (0.25,) * 3
_FACES = ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))
CRYSTAL_TYPES = {
    "fcc": CrystalType(_FCC, (_ORIGIN,), (0,), ((0, 0, 0.5**0.5),)),
    "bcc": CrystalType(_BCC, (_ORIGIN,), (0,), ((0, 0, 0.75**0.5),)),
    "rock salt": CrystalType(_FCC, (_ORIGIN, _CENTRE), (0, 1), ((0, 1, 0.5),)),
    "zinc blende": CrystalType(_FCC, (_ORIGIN, _QUARTER), (0, 1), ((0, 1, 0.75**0.5 / 2),)),
    "caesium chloride": CrystalType(_CUBIC, (_ORIGIN, _CENTRE), (0, 1), ((0, 1, 0.75**0.5),)),
    "fluorite": CrystalType(_FCC, (_ORIGIN, _QUARTER, (0.75,) * 3), (0, 1, 1), ((0, 1, 0.75**0.5 / 2),)),
    "Cu3Au": CrystalType(_CUBIC, (_ORIGIN, *_FACES), (0, 1, 1, 1), ((0, 1, 0.5**0.5), (1, 1, 0.5**0.5))),
    "perovskite": CrystalType(
        _CUBIC, (_ORIGIN, _CENTRE, *_FACES), (0, 1, 2, 2, 2), ((0, 2, 0.5**0.5), (1, 2, 0.5), (2, 2, 0.5**0.5))
    ),
}


def with_replay(
    data: TrainingData,
    config: ReplayConfig,
    model: nn.Module,
    elements: NDArray[np.bool_],
    dtype: torch.dtype,
    seed: int,
) -> TrainingData:
    """The data with replay frames in the training part: perturbed crystals with energy, forces and stress of the model.

    Frames that the model refuses, with atoms nearer than 0.9 Å, forces beyond 5 eV/Å or a stress beyond 0.15 eV/Å^3
    are drawn anew.

    elements: by atomic number, those that the crystals may hold: the model may have others that it is yet to learn

    Raises:
        ValueError: a path without usable structures.
    """
    rng = np.random.default_rng([seed, 1])
    known = (np.flatnonzero(elements[1:95]) + 1).tolist()
    sources = None
    if config.path is not None:
        read_structures = (record.atoms for record in read(config.path, "auto", []))
        sources = [a for a in read_structures if a.pbc.all() and len(a) <= _MOST_ATOMS and set(a.numbers) <= set(known)]
        if not sources:
            raise ValueError(f"data.replay.path: {config.path} has no crystal of elements that the model knows")
    parts: list[StructureArrays] = []
    n_missing, n_drawn = config.frames, 0
    for _ in range(20):
        drawn = [_draw(sources, known, rng) for _ in range(n_missing)]
        parts += _label([crystal for crystal in drawn if not too_close(crystal, _NEAREST)], model, dtype, n_drawn)
        n_drawn += len(drawn)
        n_missing = config.frames - sum(map(len, parts))
        if not n_missing:
            break
    if not parts:
        raise ValueError("data.replay: in no frame are the forces of the model below 5 eV/Å")
    note = f"{config.frames - n_missing:,} replay frames added to the training part"
    return replace(data, train=join_arrays([data.train, *parts]), notes=(*data.notes, note))


def _draw(sources: list[Atoms] | None, known: list[int], rng: np.random.Generator) -> Atoms:
    """A perturbed crystal."""
    if sources is None:
        kinds = [kind for kind in CRYSTAL_TYPES.values() if max(kind.species) < len(known)]
        kind = kinds[int(rng.integers(len(kinds)))]
        n_species = max(kind.species) + 1
        numbers = rng.choice(known, size=n_species, replace=False).tolist()
        anions = [number for number in _ANIONS if number in known and number not in numbers[:-1]]
        if n_species > 1 and anions and rng.random() < 0.6:
            numbers[-1] = int(rng.choice(anions))
        crystal = kind.crystal(numbers)
    else:
        crystal = sources[int(rng.integers(len(sources)))]
    return apply(_PERTURBATION, crystal, _MOST_ATOMS, rng)


def _label(crystals: list[Atoms], model: nn.Module, dtype: torch.dtype, first: int) -> list[StructureArrays]:
    """The crystals with the model's energy, forces and stress, without those with large forces or stress.

    first: number of the first crystal, for its id
    """
    if not crystals:
        return []
    records = [Record(f"{REPLAY_KIND}-{first + i}", crystal, {}) for i, crystal in enumerate(crystals)]
    arrays = structure_arrays(records)
    try:
        found = predict_arrays(predict_energies, model, arrays, dtype=dtype)
    except ValueError:  # one that the model refuses
        half = len(crystals) // 2
        if not half:
            return []
        return _label(crystals[:half], model, dtype, first) + _label(crystals[half:], model, dtype, first + half)
    largest = np.maximum.reduceat(np.linalg.norm(found["forces"], axis=1), arrays.first[:-1])
    usable = np.isfinite(found["energy"]) & (largest <= _LARGEST_FORCE)
    usable &= np.nan_to_num(np.abs(found["stress"])).max(axis=(1, 2)) <= _LARGEST_STRESS
    values = {name: found[name] for name in ("energy", "forces", "stress")}
    return [replace(arrays, values=values, kinds=(REPLAY_KIND,)).take(np.flatnonzero(usable))] if usable.any() else []
