"""Relaxation of one crystal as a sequence of questions, so that many relax in common batches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_potnet.evaluation import Result
from ase_potnet.screening.engine import Ask, Steps
from ase_potnet.screening.failures import EXPLODED, ScreeningFailure
from ase_potnet.screening.symmetry import Symmetry, make_symmetric

Array = NDArray[np.float64]
_MEMORY = 30  # steps that L-BFGS remembers
_FIRST_CURVATURE = 20.0  # eV/Å^2
_LARGEST_STEP = 0.15  # Å, of an atom
_LARGEST_STRAIN = 0.04  # of a step
_RISE = 2e-4  # eV an atom; beyond, a step is taken back
_VOLUME = (0.3, 3.0)  # of the first volume; a crystal beyond has exploded


@dataclass(frozen=True)
class Relaxed:
    """What came out of a relaxation.

    atoms: the last structure, result: of it
    converged: whether fmax was reached; force: the value compared with it, eV/Å
    steps: evaluations after the first
    """

    atoms: Atoms
    result: Result
    converged: bool
    force: float
    steps: int


def relax_steps(
    atoms: Atoms,
    *,
    fmax: float,
    max_steps: int,
    cell: bool = True,
    symprec: float | None = 0.01,
    pressure: float = 0.0,
) -> Steps:
    """Steps of a relaxation by L-BFGS in atoms and strain; returns ``Relaxed``.

    Convergence as in ASE's ``FrechetCellFilter``: the forces on atoms and the rows of V σ / N below fmax.

    Args:
        fmax: eV/Å
        max_steps: evaluations
        cell: relax the cell as well, where three directions are periodic
        symprec: Å; the symmetry to within it is made exact and kept; None: none is looked for
        pressure: eV/Å^3

    Raises:
        ScreeningFailure: the volume has left 0.3 to 3 times the first.
    """
    symmetry: Symmetry | None = None
    if symprec is not None:
        atoms, symmetry = make_symmetric(atoms, symprec)
    cell = cell and bool(atoms.pbc.all())
    lbfgs = _Lbfgs()
    x, frame = atoms.positions.copy(), atoms.cell.array.copy()
    volume = abs(float(np.linalg.det(frame)))
    (result,) = yield Ask([(atoms.numbers, x, frame, atoms.pbc)])
    gradient, force = _gradient(result, frame, symmetry, cell, pressure)
    height = _height(result, frame, pressure)
    steps = 0
    step = lbfgs.step(gradient, len(x))
    while force > fmax and steps < max_steps:
        new_x, new_frame = _moved(x, frame, step)
        if cell and not _VOLUME[0] < abs(float(np.linalg.det(new_frame))) / volume < _VOLUME[1]:
            raise ScreeningFailure(EXPLODED, f"the volume left {_VOLUME[0]} to {_VOLUME[1]} times the first")
        steps += 1
        (new_result,) = yield Ask([(atoms.numbers, new_x, new_frame, atoms.pbc)])
        new_height = _height(new_result, new_frame, pressure)
        if new_height - height > _RISE * len(x) and np.abs(step).max() > 1e-4:
            lbfgs.forget()
            step = 0.3 * step
            continue
        x, frame, result, height = new_x, new_frame, new_result, new_height
        new_gradient, force = _gradient(result, frame, symmetry, cell, pressure)
        lbfgs.learn(step, new_gradient - gradient)
        gradient = new_gradient
        step = lbfgs.step(gradient, len(x))
    final = Atoms(atoms.numbers, positions=x, cell=frame, pbc=atoms.pbc)
    return Relaxed(final, result, bool(force <= fmax), force, steps)


def _height(result: Result, frame: Array, pressure: float) -> float:
    """Enthalpy, eV."""
    return result.energy + (pressure * abs(float(np.linalg.det(frame))) if pressure else 0.0)


def _gradient(
    result: Result, frame: Array, symmetry: Symmetry | None, cell: bool, pressure: float
) -> tuple[Array, float]:
    """Slope in atoms and, in rows below, strain times √N (n, 3); and the number to compare with fmax, eV/Å."""
    assert result.forces is not None
    forces = result.forces - result.forces.mean(0)
    if symmetry is not None:
        forces = symmetry.vectors(forces)
    if not cell:
        return -forces, _largest(forces)
    assert result.stress is not None
    stress = voigt_6_to_full_3x3_stress(result.stress) + pressure * np.eye(3)
    if symmetry is not None:
        stress = symmetry.tensor(stress)
    virial = abs(float(np.linalg.det(frame))) * stress
    n = len(forces)
    return np.concatenate([-forces, virial / n**0.5]), max(_largest(forces), _largest(virial / n))


def _largest(rows: Array) -> float:
    return float(np.sqrt((rows * rows).sum(1).max()))


def _moved(x: Array, frame: Array, step: Array) -> tuple[Array, Array]:
    """Atoms and cell after a step; the strain is symmetric, so nothing turns."""
    n = len(x)
    if len(step) == n:
        return x + step, frame
    strain = step[n:] / n**0.5
    values, vectors = np.linalg.eigh(0.5 * (strain + strain.T))
    deform = (vectors * np.exp(values)) @ vectors.T
    return (x + step[:n]) @ deform, frame @ deform


class _Lbfgs:
    """Steps from slopes: L-BFGS without line search, steps of limited length."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[Array, Array, float]] = deque(maxlen=_MEMORY)

    def forget(self) -> None:
        self._pairs.clear()

    def learn(self, step: Array, change: Array) -> None:
        """A step taken, and the change of the slope along it."""
        curvature = float(np.vdot(step, change))
        if curvature > 1e-3 * float(np.vdot(step, step)):  # eV/Å^2
            self._pairs.append((step, change, 1.0 / curvature))

    def step(self, gradient: Array, n_atoms: int) -> Array:
        q, weights = gradient.copy(), []
        for step, change, rho in reversed(self._pairs):
            weight = rho * float(np.vdot(step, q))
            weights.append(weight)
            q -= weight * change
        if self._pairs:
            step, change, rho = self._pairs[-1]
            q /= rho * float(np.vdot(change, change))
        else:
            q /= _FIRST_CURVATURE
        for (step, change, rho), weight in zip(self._pairs, reversed(weights), strict=True):
            q += (weight - rho * float(np.vdot(change, q))) * step
        return _limited(-q, n_atoms)


def _limited(step: Array, n_atoms: int) -> Array:
    """The step, shortened where an atom or the cell moves too far."""
    scale = _largest(step[:n_atoms]) / _LARGEST_STEP
    if len(step) > n_atoms:
        scale = max(scale, _largest(step[n_atoms:]) / n_atoms**0.5 / _LARGEST_STRAIN)
    return step / scale if scale > 1 else step
