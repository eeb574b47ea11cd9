"""Frames from structures: one kind of a recipe is drawn and applied, from a seed of the frame's own."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .recipe import Kind, Recipe, Surface
from .supercells import cell_counts, draw_supercell


def frame_seed(seed: int, structure: str, frame: int) -> int:
    """The seed, below 2^63, of a frame of a structure: the same whatever else is labelled, and in whatever order."""
    digest = hashlib.sha256(f"{seed}/{frame}/{structure}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draw_kind(atoms: Atoms, recipe: Recipe, frame: int, rng: np.random.Generator) -> str:
    """The kind of a frame, by weight among those that can be applied. Raises ValueError if there is none."""
    names = [
        name
        for name, kind in recipe.kinds.items()
        if (kind.changes or frame == 0) and applies(kind, atoms, recipe.limits.max_atoms)
    ]
    if not names:
        raise ValueError("no kind of the recipe can be applied to this structure")
    weights = np.array([recipe.kinds[name].weight for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def applies(kind: Kind, atoms: Atoms, max_atoms: int) -> bool:
    """Whether a kind can be applied: periodic where it has to be, with enough atoms, and not too many."""
    periodic = bool(atoms.pbc.any())
    if kind.strains and not periodic and kind.sigma[1] == 0:
        return False
    n_atoms = len(atoms)
    if kind.supercell is not None:
        counts = cell_counts(kind.supercell, n_atoms, max_atoms)
        if not periodic or not len(counts):
            return False
        n_atoms *= counts.start
    if kind.surface is not None and not (atoms.pbc.all() and slab_layers(atoms, kind.surface, max_atoms)):
        return False
    return n_atoms > kind.vacancies


def apply(kind: Kind, atoms: Atoms, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """The perturbed structure. Initial magnetic moments and the like are kept, constraints and results are not."""
    frame = atoms.copy()
    frame.set_constraint()
    frame.info = {}
    if kind.supercell is not None:
        frame = draw_supercell(frame, kind.supercell, max_atoms, rng)
    if kind.surface is not None:
        frame = draw_slab(frame, kind.surface, max_atoms, rng)
    if kind.vacancies:
        del frame[rng.choice(len(frame), size=kind.vacancies, replace=False).tolist()]
    if kind.strains:
        strain(frame, draw_deformation(kind, frame, rng))
    if kind.sigma[1] > 0:
        frame.positions += rng.normal(scale=rng.uniform(*kind.sigma), size=(len(frame), 3))
    return frame


def draw_deformation(kind: Kind, atoms: Atoms, rng: np.random.Generator) -> NDArray[np.float64]:
    """A deformation gradient F (3, 3), symmetric, that leaves directions without periodicity alone.

    Within the periodic directions it is s (1 + ε), ε symmetric with components of standard deviation `shear`, s such
    that det F is the drawn volume.
    """
    periodic = atoms.cell.array[atoms.pbc]  # (n_periodic, 3)
    n = len(periodic)
    volume = rng.uniform(*kind.volume)
    draws = rng.normal(scale=kind.shear, size=(3, 3)) if kind.shear else np.zeros((3, 3))
    if n == 0:
        return np.eye(3)
    axes = np.eye(3) if n == 3 else np.linalg.qr(periodic.T)[0]  # (3, n_periodic), orthonormal columns
    upper = np.triu(draws)[:n, :n]
    inner = np.eye(n) + upper + upper.T - np.diag(upper.diagonal())
    determinant = np.linalg.det(inner)
    if determinant < 0.1:
        raise ValueError(f"a strain of {kind.shear} turned the cell over")
    inner *= (volume / determinant) ** (1 / n)
    return np.asarray(np.eye(3) + axes @ (inner - np.eye(n)) @ axes.T)


def strain(atoms: Atoms, deformation: NDArray[np.float64]) -> None:
    """Deform cell and positions in place: every vector v becomes F v."""
    atoms.set_cell(atoms.cell.array @ deformation.T, scale_atoms=False)
    atoms.positions = atoms.positions @ deformation.T


def slab_layers(atoms: Atoms, surface: Surface, max_atoms: int) -> dict[tuple[int, int, int], int]:
    """Number of layers, each as many atoms as the cell, for every Miller index whose slab is small enough."""
    limit = min(surface.max_atoms, max_atoms)
    reciprocal = np.linalg.inv(atoms.cell.array).T  # (3, 3), rows; the spacing of planes is 1 / |h a* + k b* + l c*|
    found: dict[tuple[int, int, int], int] = {}
    indices = range(-surface.max_index, surface.max_index + 1)
    for miller in itertools.product(indices, indices, indices):
        if miller <= (0, 0, 0) or math.gcd(*miller) != 1:
            continue
        layers = math.ceil(surface.thickness * math.hypot(*(np.array(miller) @ reciprocal).tolist()) - 1e-9)
        if layers * len(atoms) <= limit:
            found[miller] = layers
    return found


def draw_slab(atoms: Atoms, surface: Surface, max_atoms: int, rng: np.random.Generator) -> Atoms:
    """A slab of a random Miller index and termination, its normal along z, with vacuum; periodic in z as well."""
    from ase.build import surface as build_surface

    layers = slab_layers(atoms, surface, max_atoms)
    miller = sorted(layers)[int(rng.integers(len(layers)))]
    bulk = atoms.copy()
    bulk.set_scaled_positions(bulk.get_scaled_positions(wrap=False) + rng.random(3))
    slab = build_surface(bulk, miller, layers[miller], periodic=True)
    slab.center(vacuum=surface.vacuum / 2, axis=2)
    slab.pbc = True
    del slab.arrays["tags"]  # some calculators take tags for species
    return slab


def too_close(atoms: Atoms, limit: float) -> bool:
    """Whether two atoms, periodic images included, are nearer than the limit in Å."""
    from vesin import ase_neighbor_list

    return limit > 0 and bool(len(ase_neighbor_list("ij", atoms, limit)[0]))
