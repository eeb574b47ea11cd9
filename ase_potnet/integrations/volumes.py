"""Phonons at several volumes: Grüneisen parameters and the quasi-harmonic approximation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from torch import nn

from ase_potnet.checks import is_finite
from ase_potnet.integrations.harmonic import (
    PhononWarning,
    Progress,
    check_temperatures,
    checked,
    harmonic,
    quiet_meshes,
    relaxed,
    silent,
    warn_of_imaginary_modes,
)
from ase_potnet.integrations.potnet_mlp import PotNetMLP
from ase_potnet.integrations.supercells import supercell_matrix

if TYPE_CHECKING:
    from phonopy import Phonopy, PhonopyGruneisen, QHAResult

_EQUATIONS = ("vinet", "murnaghan", "birch_murnaghan")
_VOLUMES = (0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06)


def gruneisen(
    structure: Any,
    model: str | Path | nn.Module = "default",
    *,
    strain: float = 0.01,
    mesh: float | Sequence[int] = 30.0,
    band_points: int = 51,
    supercell: Any = "auto",
    nac: Any = None,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-3,
    device: str = "auto",
    progress: Progress | None = None,
) -> PhonopyGruneisen:
    """Mode Grüneisen parameters γ = -(V/ω) dω/dV, on a mesh and on the path of seekpath.

    Args:
        strain: volumes are V (1 ± strain); atoms and the cell's shape relax at each.
        others: as of ``phonons``.

    Returns:
        phonopy's object: ``get_mesh()``, ``get_band_structure()`` and the plots are ready.

    Raises:
        ValueError: naming the argument.
    """
    from phonopy import PhonopyGruneisen
    from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

    structure, supercell = checked(structure, supercell, mesh=mesh, nac=nac, max_steps=max_steps)
    if not 0 < strain < 0.2:
        raise ValueError(f"strain: wanted a part of the volume between 0 and 0.2, got {strain!r}")
    runs = _at_volumes(
        structure, model, (1.0, 1 + strain, 1 - strain), supercell=supercell, nac=nac, fmax=fmax, max_steps=max_steps,
        symprec=symprec, device=device, progress=progress,
    )  # fmt: skip
    result = PhonopyGruneisen(runs[0][0], runs[1][0], runs[2][0])
    with quiet_meshes():
        result.set_mesh(runs[0][0].run_mesh(mesh, is_gamma_center=True).mesh_numbers, is_gamma_center=True)
    bands, _, _ = get_band_qpoints_by_seekpath(runs[0][0].primitive, band_points, is_const_interval=True)
    result.set_band_structure(bands)
    return result


def quasi_harmonic(
    structure: Any,
    model: str | Path | nn.Module = "default",
    *,
    volumes: Sequence[float] = _VOLUMES,
    temperatures: Sequence[float] | None = None,
    pressure: float | None = None,
    mesh: float | Sequence[int] = 100.0,
    eos: str = "vinet",
    supercell: Any = "auto",
    nac: Any = None,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-3,
    device: str = "auto",
    progress: Progress | None = None,
) -> QHAResult:
    """Thermal expansion, bulk modulus, heat capacity at constant pressure, ... in the quasi-harmonic approximation.

    Args:
        volumes: in units of the relaxed volume, five at least; atoms and the cell's shape relax at each.
        temperatures: K, three or more from 0 on, evenly spaced, as phonopy takes differences; default 0, 10, ... 1000.
        pressure: GPa.
        eos: "vinet", "murnaghan" or "birch_murnaghan".
        others: as of ``phonons``.

    Returns:
        phonopy's ``QHAResult``, in eV, Å and K (bulk moduli in eV/Å³), of the primitive cell. A ``PhononWarning`` says
        from which temperature on the equilibrium volume lies outside the volumes: results there are extrapolated.

    Raises:
        ValueError: naming the argument.
    """
    from phonopy import run_qha

    try:
        wrong = not np.isfinite(volumes).all() or len(np.unique(volumes)) < 5 or min(volumes) <= 0
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(f"volumes: wanted five or more different multiples of the relaxed volume, got {volumes!r}")
    structure, supercell = checked(structure, supercell, mesh=mesh, nac=nac, max_steps=max_steps)
    chosen = np.arange(0.0, 1001.0, 10.0) if temperatures is None else check_temperatures(temperatures)
    steps = np.diff(chosen)
    if len(chosen) < 3 or chosen[0] != 0 or steps[0] <= 0 or not np.allclose(steps, steps[0]):
        raise ValueError(f"temperatures: wanted three or more from 0 K on, evenly spaced, got {temperatures!r}")
    grid = np.append(chosen, chosen[-1] + steps[0])  # phonopy needs one more than it returns
    if eos not in _EQUATIONS:
        raise ValueError(f"eos: wanted one of {', '.join(_EQUATIONS)}, got {eos!r}")
    if pressure is not None and not is_finite(pressure):
        raise ValueError(f"pressure: wanted GPa, got {pressure!r}")
    runs = _at_volumes(
        structure, model, sorted(volumes), supercell=supercell, nac=nac, fmax=fmax, max_steps=max_steps,
        symprec=symprec, device=device, progress=progress,
    )  # fmt: skip
    runs_of, energies = [ph for ph, _ in runs], [energy for _, energy in runs]
    with quiet_meshes(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lattice parameters are extrapolated")  # the warning below says where
        result = run_qha(runs_of, grid, energies, mesh=mesh, pressure=pressure, eos=eos, exclude_gamma_acoustic=True)
    _warn_of_extrapolation(result, [ph.primitive.volume for ph in runs_of])
    return result


def _warn_of_extrapolation(result: QHAResult, volumes: Sequence[float]) -> None:
    """Warn where the crystal expands or shrinks beyond the volumes (Å³)."""
    found = np.asarray(result.equilibrium_volumes)
    outside = np.flatnonzero((found < min(volumes)) | (found > max(volumes)))
    if len(outside):
        first = outside[0]
        warnings.warn(
            f"equilibrium volume outside the volumes from {result.temperatures[first]:g} K on ({found[first]:.2f} Å³; "
            f"{min(volumes):.2f} to {max(volumes):.2f} Å³ were computed): results there are extrapolated; pass other "
            "volumes or lower temperatures",
            PhononWarning,
            stacklevel=3,
        )


def _at_volumes(
    structure: Any,
    model: Any,
    volumes: Sequence[float],
    *,
    supercell: Any,
    nac: Any,
    fmax: float,
    max_steps: int,
    symprec: float,
    device: str,
    progress: Progress | None,
) -> list[tuple[Phonopy, float]]:
    """Force constants and energy (eV, primitive cell) at multiples of the relaxed volume, in one supercell."""
    report = progress or silent
    mlp = PotNetMLP(model, device=device)
    options: dict[str, Any] = {"fmax": fmax, "max_steps": max_steps, "symprec": symprec}
    ground = relaxed(structure, mlp, progress=report, **options)
    matrix = supercell_matrix(ground, supercell)
    result = []
    for done, volume in enumerate(volumes):
        report("forces", done / len(volumes))
        atoms = relaxed(_scaled(ground, volume), mlp, cell="shape", **options)
        ph = harmonic(atoms, mlp, supercell=matrix, nac=nac)
        warn_of_imaginary_modes(ph, stacklevel=4)
        (energy,) = mlp.results([ph.primitive], forces=False, stress=False)
        result.append((ph, energy.energy))
    report("forces", 1.0)
    return result


def _scaled(atoms: Atoms, volume: float) -> Atoms:
    """The crystal at a multiple of its volume."""
    result = atoms.copy()
    result.set_cell(atoms.cell.array * volume ** (1 / 3), scale_atoms=True)
    return result
