"""Equation of state and elastic constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray

from ase_potnet.screening.engine import Ask, Steps, as_tuple
from ase_potnet.screening.failures import NOT_CONVERGED, NOT_PERIODIC, ScreeningFailure
from ase_potnet.screening.relaxation import relax_steps
from ase_potnet.screening.symmetry import standard_frame
from ase_potnet.screening.tasks import Crystal, together

Array = NDArray[np.float64]
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # Voigt


@dataclass(frozen=True)
class EquationOfState:
    """Bulk modulus from energies at several volumes, fractional coordinates kept: the Birch-Murnaghan equation.

    points: volumes; strain: largest change of the volume, as a part of it
    """

    points: int = 7
    strain: float = 0.06
    name: ClassVar[str] = "eos"
    columns: ClassVar[Mapping[str, str]] = {
        "bulk_modulus": "GPa",
        "bulk_modulus_derivative": "",
        "eos_volume_per_atom": "Å^3/atom",
        "eos_energy_per_atom": "eV/atom",
    }

    def __post_init__(self) -> None:
        if self.points < 5 or not 0 < self.strain < 0.5:
            raise ValueError("eos.points, eos.strain: wanted 5 or more, and a number between 0 and 0.5")

    def run(self, crystal: Crystal) -> Steps:
        """One question of several structures."""
        require_periodic(crystal.atoms, self.name)
        n, volume = len(crystal.atoms), crystal.atoms.get_volume()
        volumes = volume * np.linspace(1 - self.strain, 1 + self.strain, self.points)
        scaled = [_strained(crystal.atoms, np.eye(3) * (v / volume) ** (1 / 3)) for v in volumes]
        results = yield Ask([as_tuple(atoms) for atoms in scaled], forces=False, stress=False)
        energies = np.array([result.energy for result in results])
        try:
            v0, e0, modulus, derivative = birch_murnaghan(volumes, energies)
        except ScreeningFailure as failure:
            step = (energies[-1] - energies[0]) / (volumes[-1] - volumes[0])
            raise ScreeningFailure(
                NOT_CONVERGED,
                f"no minimum of the energy between the volumes (the pressure is about {-step / GPa:.1f} GPa there): "
                "relax first, without pressure",
            ) from failure
        return {
            "bulk_modulus": modulus / GPa,
            "bulk_modulus_derivative": derivative,
            "eos_volume_per_atom": v0 / n,
            "eos_energy_per_atom": e0 / n,
        }


def birch_murnaghan(volumes: Array, energies: Array) -> tuple[float, float, float, float]:
    """Volume (Å^3), energy (eV), bulk modulus (eV/Å^3) and its derivative by pressure at the minimum.

    The equation is a cubic polynomial in x = V^(-2/3): a linear fit. Raises ScreeningFailure without a minimum inside.
    """
    scale = float(volumes.mean()) ** (-2 / 3)
    fit = np.polynomial.Polynomial.fit(volumes ** (-2 / 3) / scale, energies - energies.mean(), 3).convert()
    slope, curvature, third = fit.deriv(1), fit.deriv(2), fit.deriv(3)
    for root in slope.roots():
        if abs(root.imag) < 1e-9 and curvature(root.real) > 0:
            x = float(root.real)
            v = (x * scale) ** -1.5
            if volumes.min() <= v <= volumes.max():
                # V² E'' and V³ E''' by the chain rule, with dx/dV = -2/3 x/V
                second = 4 / 9 * x * x * curvature(x)
                cubic = -(8 / 27 * x**3 * third(x) + 20 / 9 * x * x * curvature(x))
                return v, float(fit(x) + energies.mean()), float(second / v), float(-1 - cubic / second)
    raise ScreeningFailure(NOT_CONVERGED, "no minimum of the energy between the volumes; relax first")


@dataclass(frozen=True)
class Elastic:
    """Elastic constants from stresses at small strains, atoms relaxed in each; in the ``standard_frame``.

    The package spglib is needed.

    strain: its size; fmax: of the atoms, eV/Å; 0: atoms stay where the strain puts them
    """

    strain: float = 0.005
    fmax: float = 0.005
    max_steps: int = 200
    name: ClassVar[str] = "elastic"
    columns: ClassVar[Mapping[str, str]] = {
        "elastic_constants": "GPa, Voigt",
        "bulk_modulus_vrh": "GPa",
        "shear_modulus_vrh": "GPa",
        "mechanically_stable": "",
    }

    def __post_init__(self) -> None:
        if not 0 < self.strain < 0.1 or self.fmax < 0:
            raise ValueError("elastic.strain, elastic.fmax: wanted a strain between 0 and 0.1, a force from 0")
        import_module("spglib")  # missed before the first crystal

    def run(self, crystal: Crystal) -> Steps:
        """Twelve strained crystals side by side."""
        require_periodic(crystal.atoms, self.name)
        turned = standard_frame(crystal.atoms)
        strained = []
        for i, j in _PAIRS:
            for sign in (1, -1):
                strain = np.zeros((3, 3))
                strain[i, j] += 0.5 * sign * self.strain
                strain[j, i] += 0.5 * sign * self.strain
                strained.append(_strained(turned, np.eye(3) + strain))
        if self.fmax:
            found = yield from together(
                [
                    relax_steps(atoms, fmax=self.fmax, max_steps=self.max_steps, cell=False, symprec=None)
                    for atoms in strained
                ]
            )
            if not all(one.converged for one in found):
                raise ScreeningFailure(NOT_CONVERGED, "the atoms of a strained crystal did not relax")
            results = [one.result for one in found]
        else:
            results = yield Ask([as_tuple(atoms) for atoms in strained])
        stresses = np.array([result.stress for result in results]).reshape(6, 2, 6)
        constants = (stresses[:, 0] - stresses[:, 1]) / (2 * self.strain) / GPa
        constants = 0.5 * (constants + constants.T)
        stable = bool(np.linalg.eigvalsh(constants).min() > 0)
        values = {"elastic_constants": constants.tolist(), "mechanically_stable": stable}
        return values | (hill(constants) if stable else {})


def hill(constants: Array) -> dict[str, float]:
    """Voigt-Reuss-Hill averages of elastic constants (6, 6) in GPa."""
    c, s = constants, np.linalg.inv(constants)
    bulk = (c[:3, :3].sum() / 9, 1 / s[:3, :3].sum())
    shear = (
        (np.trace(c[:3, :3]) - (c[0, 1] + c[0, 2] + c[1, 2]) + 3 * np.trace(c[3:, 3:])) / 15,
        15 / (4 * (np.trace(s[:3, :3]) - (s[0, 1] + s[0, 2] + s[1, 2])) + 3 * np.trace(s[3:, 3:])),
    )
    return {"bulk_modulus_vrh": float(np.mean(bulk)), "shear_modulus_vrh": float(np.mean(shear))}


def require_periodic(atoms: Atoms, task: str) -> None:
    """Raises ScreeningFailure unless three directions are periodic."""
    if not atoms.pbc.all():
        raise ScreeningFailure(NOT_PERIODIC, f"{task} wants three periodic directions, got pbc={atoms.pbc.tolist()}")


def _strained(atoms: Atoms, deformation: Array) -> Atoms:
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return result
