"""Relaxation of crystals that keeps their symmetry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.units import GPa
from torch import nn

from ase_potnet.checks import LARGEST_SYMPREC

_LARGEST_STEP = 0.1  # Å
_LARGE_CHANGE = 0.25  # of the volume, beyond which a crystal is hardly the one that was given


class RelaxationWarning(UserWarning):
    """A relaxation whose result wants a look."""


@dataclass(frozen=True)
class Relaxation:
    """A relaxed crystal.

    atoms: without calculator and constraints
    converged: whether ``fmax`` was reached
    steps: of the optimiser
    energy: eV
    force: largest force on an atom, eV/Å
    stress: largest component, GPa; what the symmetry or a fixed cell does not let relax included
    """

    atoms: Atoms
    converged: bool
    steps: int
    energy: float
    force: float
    stress: float


def relax(
    structure: Any,
    model: str | Path | nn.Module = "default",
    *,
    cell: bool | Literal["shape"] = True,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-3,
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> Relaxation:
    """Relax a crystal with the symmetry that it has, in float64.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure`` or phonopy cell, periodic in three directions.
        model: packaged name, model folder, or loaded model.
        cell: relax the cell, too (True), its shape at constant volume ("shape"), or the atoms alone (False).
        fmax: eV/Å; stress counts as force on the cell, as in ASE's ``FrechetCellFilter``.
        max_steps: of the optimiser.
        symprec: Å; the structure is first made symmetric to within it.
        progress: called with the number of steps done.

    Warns (`RelaxationWarning`) where the volume changes by more than a quarter.

    Raises:
        ValueError: naming structure, model, cell, fmax, max_steps or symprec.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    from ase_potnet.calculator import PotNetCalculator
    from ase_potnet.integrations.potnet_mlp import to_atoms

    if not isinstance(cell, (bool, str)) or cell not in (True, False, "shape"):
        raise ValueError(f"cell: wanted True, False or 'shape', got {cell!r}")
    check_steps(max_steps)
    if not fmax > 0:
        raise ValueError(f"fmax: wanted a positive force in eV/Å, got {fmax!r}")
    atoms = symmetrised(to_atoms(structure), symprec)
    volume = atoms.get_volume()
    atoms.calc = PotNetCalculator(model, device=device)
    atoms.set_constraint(FixSymmetry(atoms, symprec=symprec))
    target: Any = FrechetCellFilter(atoms, constant_volume=cell == "shape") if cell else atoms
    optimiser = BFGS(target, logfile=None, maxstep=_LARGEST_STEP)
    if progress is not None:
        optimiser.attach(lambda: progress(optimiser.nsteps))
    converged = bool(optimiser.run(fmax=fmax, steps=max_steps))
    atoms.set_constraint()
    change = float(atoms.get_volume() / volume) - 1
    if abs(change) > _LARGE_CHANGE:
        warnings.warn(
            f"the volume changed by {100 * change:+.0f} %: this is hardly the crystal that was given; either that is "
            "far from equilibrium, or the potential does not hold it together",
            RelaxationWarning,
            stacklevel=2,
        )
    return Relaxation(
        atoms=_bare(atoms),
        converged=converged,
        steps=int(optimiser.nsteps),
        energy=float(atoms.get_potential_energy()),
        force=float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
        stress=float(np.abs(atoms.get_stress()).max() / GPa),
    )


def check_steps(max_steps: int) -> None:
    """Raises ValueError unless the number of steps is an integer from 0."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)) or max_steps < 0:
        raise ValueError(f"max_steps: wanted an integer from 0, got {max_steps!r}")


def symmetrised(atoms: Atoms, symprec: float) -> Atoms:
    """The crystal with the symmetry that it has to within symprec (Å) made exact. Raises ValueError naming symprec."""
    from ase.spacegroup.symmetrize import refine_symmetry

    if not 0 < symprec <= LARGEST_SYMPREC:
        raise ValueError(f"symprec: wanted a length in Å above 0 and up to {LARGEST_SYMPREC}, got {symprec!r}")
    result = _bare(atoms)
    refine_symmetry(result, symprec=symprec)
    return result


def _bare(atoms: Atoms) -> Atoms:
    """A copy without calculator and constraints."""
    result = atoms.copy()
    result.set_constraint()
    result.calc = None
    return result
