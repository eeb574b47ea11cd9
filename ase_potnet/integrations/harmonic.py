"""Phonons of a crystal in one call: ``phonons(atoms)`` gives a phonopy object with everything calculated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import ArrayLike, NDArray
from torch import nn

from ase_potnet.checks import is_finite
from ase_potnet.integrations.born_charges import check_nac, nac_parameters
from ase_potnet.integrations.potnet_mlp import PotNetMLP, to_phonopy
from ase_potnet.integrations.relaxation import Relaxation, check_steps, relax, symmetrised
from ase_potnet.integrations.supercells import right_handed, supercell_matrix

if TYPE_CHECKING:
    from phonopy import Phonopy

METHODS = ("finite", "analytic")
_RESIDUAL_FORCE = 0.1  # eV/Å, without relaxation
_MOST_ATOMS = 10_000  # of a supercell
_LONGEST_MESH = 10_000  # Å, or points of an axis
_MOST_POINTS = 10**7  # of a mesh
_SLIGHTLY_IMAGINARY = 0.05  # THz, within what interpolation and rounding leave of acoustic modes
Progress = Callable[[str, float], None]


class PhononWarning(UserWarning):
    """Phonons that may not be what was wanted: imaginary modes, or a structure that is not relaxed."""


@dataclass(frozen=True)
class ImaginaryMode:
    """A mode with a negative eigenvalue.

    q: wave vector in reciprocal vectors of the primitive cell
    band: from 0
    frequency: THz, negative as in phonopy
    commensurate: whether q belongs to the supercell, so that the frequency is no interpolation
    """

    q: tuple[float, float, float]
    band: int
    frequency: float
    commensurate: bool


def phonons(
    structure: Any,
    model: str | Path | nn.Module = "default",
    *,
    supercell: str | float | Sequence[int] | ArrayLike = "auto",
    relax: bool = True,
    method: str = "finite",
    distance: float = 0.01,
    nac: str | Path | Mapping[str, Any] | None = None,
    mesh: float | Sequence[int] = 100.0,
    temperatures: Sequence[float] | None = None,
    band_points: int = 51,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-3,
    device: str = "auto",
    progress: Progress | None = None,
) -> Phonopy:
    """Phonons of a crystal: relax it, find its force constants, and run what phonopy derives from them.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure`` or phonopy cell, periodic in three directions. The first two
            vectors of a left-handed cell change places.
        model: packaged name, model folder, or loaded model.
        supercell: "auto" (heights of at least 10 Å), another least height in Å, or phonopy's matrix for the given cell;
            up to 10,000 atoms.
        relax: relax atoms and cell first, keeping the symmetry; without, the structure is taken as it is, only made
            symmetric to within ``symprec``.
        method: "finite": displacements, all in one batch; "analytic": second derivatives of the energy.
        distance: of the displacements, Å.
        nac: BORN file, or {"born": charges, "dielectric": tensor} (see ``nac_parameters``).
        mesh: of wave vectors for DOS and thermal properties: three numbers for the vectors of ``ph.primitive``, or a
            length in Å as in phonopy; up to 10^7 points. Thermal properties are without the three acoustic modes at Γ,
            one part in N of a heat capacity where the mesh has N points and the cell one atom.
        temperatures: K; default 0, 10, ... 1000.
        band_points: about as many points a segment of the path of seekpath.
        fmax, max_steps: of the relaxation, eV/Å.
        symprec: of the symmetry, Å.
        device: "auto": a GPU if there is one.
        progress: called with the stage ("relax", "forces", "properties") and the part of it that is done.

    Returns:
        phonopy's object with symmetrised force constants, mesh, total DOS, thermal properties and band structure:
        ``ph.plot_band_structure_and_dos()``, ``ph.thermal_properties``, ``ph.save()`` are ready.

    Warns:
        PhononWarning: imaginary modes, where and how large; a relaxation that did not converge, or large forces on a
            structure that was not relaxed.

    Raises:
        ValueError: naming the argument.
    """
    if method not in METHODS:
        raise ValueError(f"method: wanted one of {', '.join(METHODS)}, got {method!r}")
    if not (is_finite(distance) and distance > 0):
        raise ValueError(f"distance: wanted a positive length in Å, got {distance!r}")
    structure, supercell = checked(
        structure, supercell, mesh=mesh, temperatures=temperatures, nac=nac, max_steps=max_steps
    )
    report = progress or silent
    mlp = PotNetMLP(model, device=device, progress=lambda done, total: report("forces", done / total))
    if relax:
        atoms = relaxed(structure, mlp, fmax=fmax, max_steps=max_steps, symprec=symprec, progress=report)
    else:
        atoms = symmetrised(structure, symprec)
    ph = harmonic(atoms, mlp, supercell=supercell, method=method, distance=distance, nac=nac)
    if not relax:
        _warn_of_forces(mlp, ph)
    run_properties(ph, mesh=mesh, temperatures=temperatures, band_points=band_points, progress=report)
    warn_of_imaginary_modes(ph)
    return ph


def checked(
    structure: Any,
    supercell: Any,
    *,
    mesh: float | Sequence[int],
    nac: str | Path | Mapping[str, Any] | None,
    temperatures: Sequence[float] | None = None,
    max_steps: int = 0,
) -> tuple[Atoms, Any]:
    """The crystal and the supercell in a right-handed cell, see ``right_handed``.

    Raises ValueError, naming the argument, for what would fail after the relaxation.
    """
    check_steps(max_steps)
    atoms, supercell = right_handed(structure, supercell)
    n_atoms = len(atoms) * round(abs(np.linalg.det(supercell_matrix(atoms, supercell))))
    if n_atoms < 2:
        raise ValueError("supercell: wanted two atoms at least; in a cell of one atom no atom moves against another")
    if n_atoms > _MOST_ATOMS:
        raise ValueError(f"supercell: {n_atoms:,} atoms; up to {_MOST_ATOMS:,} can be dealt with")
    try:
        values = np.asarray(mesh, dtype=np.float64)
        right = bool((values > 0).all() and (values <= _LONGEST_MESH).all())
        right = right and (values.shape == () or (values.shape == (3,) and bool((values == np.rint(values)).all())))
    except (TypeError, ValueError):
        right = False
    if not right:
        raise ValueError(
            f"mesh: wanted a positive length in Å or three positive integers, {_LONGEST_MESH:,} at most, got {mesh!r}"
        )
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    n_points = float(np.prod(values if values.shape else np.maximum(1, values / heights)))
    if n_points > _MOST_POINTS:
        raise ValueError(f"mesh: {n_points:.1e} wave vectors; up to {_MOST_POINTS:.0e} can be dealt with")
    if temperatures is not None:
        check_temperatures(temperatures)
    if nac is not None:
        check_nac(nac)
    return atoms, supercell


def check_temperatures(temperatures: Sequence[float]) -> NDArray[np.float64]:
    """The temperatures as an array. Raises ValueError unless they are numbers from 0 K."""
    try:
        values = np.asarray(temperatures, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"temperatures: wanted numbers from 0 K, got {temperatures!r}")
    return values


def relaxed(
    structure: Any,
    mlp: PotNetMLP,
    *,
    fmax: float,
    max_steps: int,
    symprec: float,
    cell: Any = True,
    progress: Progress | None = None,
) -> Atoms:
    """The relaxed crystal; warns where the relaxation did not converge."""
    report = progress or silent
    found: Relaxation = relax(
        structure, mlp.model, cell=cell, fmax=fmax, max_steps=max_steps, symprec=symprec, device=str(mlp.device),
        progress=lambda step: report("relax", step / max(1, max_steps)),
    )  # fmt: skip
    if not found.converged:
        warnings.warn(
            f"the relaxation did not reach fmax = {fmax:g} eV/Å in {found.steps} steps: forces up to {found.force:.2g} "
            f"eV/Å and stress up to {found.stress:.2g} GPa are left",
            PhononWarning,
            stacklevel=3,
        )
    report("relax", 1.0)
    return found.atoms


def harmonic(
    atoms: Atoms,
    mlp: PotNetMLP,
    *,
    supercell: Any = "auto",
    method: str = "finite",
    distance: float = 0.01,
    nac: str | Path | Mapping[str, Any] | None = None,
) -> Phonopy:
    """phonopy's object with symmetrised force constants, of a structure as it is."""
    from phonopy import Phonopy
    from phonopy.structure.cells import guess_primitive_matrix

    cell = to_phonopy(atoms)
    for number in np.unique(cell.numbers):
        masses = np.unique(np.asarray(cell.masses)[cell.numbers == number])
        if len(masses) > 1:  # phonopy's symmetry would take the isotopes for one another
            raise ValueError(f"atoms: wanted one mass for all atoms of an element, got {masses.tolist()}")
    matrix = supercell_matrix(atoms, supercell)
    ph = Phonopy(cell, supercell_matrix=matrix, primitive_matrix=guess_primitive_matrix(cell))
    ph.mlp = mlp  # type: ignore[assignment]
    if nac is not None:
        ph.nac_params = nac_parameters(ph, nac)
    if method == "finite":
        ph.generate_displacements(distance=distance)
        ph.evaluate_mlp()
        ph.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    else:
        ph.force_constants = analytic_force_constants(ph, mlp)
    ph.symmetrize_force_constants(show_drift=False, use_symfc_projector=True)
    return ph


def analytic_force_constants(ph: Phonopy, mlp: PotNetMLP) -> NDArray[np.float64]:
    """Compact force constants (primitive atoms, supercell atoms, 3, 3) in eV/Å^2 from second derivatives of the energy.

    One Hessian-vector product for each direction of each atom that symmetry does not relate to another.
    """
    from ase_potnet.graph import batch_structures
    from ase_potnet.models.derivatives import second_derivatives
    from ase_potnet.pretrained.format import pick_device, read_dtype

    cell = ph.supercell
    symmetry = ph.symmetry
    structure = (np.asarray(cell.numbers, dtype=np.int64), cell.positions, cell.cell, True)
    batch = batch_structures([structure], dtype=read_dtype(mlp.dtype), device=pick_device(mlp.device))
    rows = [int(atom) for atom in symmetry.get_independent_atoms()]
    known = second_derivatives(mlp.model, batch, rows, progress=mlp.progress).to("cpu", torch.float64).numpy()
    images = symmetry.atomic_permutations  # [s, i]: where operation s takes atom i
    rotations = symmetry.symmetry_operations["rotations"]
    basis = np.asarray(cell.cell).T
    result = np.empty((len(ph.primitive), len(cell), 3, 3))
    for place, atom in enumerate(ph.primitive.p2s_map):
        k, s = next((k, s) for k, row in enumerate(rows) for s in np.flatnonzero(images[:, row] == atom)[:1])
        turn = basis @ rotations[s] @ np.linalg.inv(basis)
        result[place, images[s]] = turn @ known[k] @ turn.T
    return result


def run_properties(
    ph: Phonopy,
    *,
    mesh: float | Sequence[int] = 100.0,
    temperatures: Sequence[float] | None = None,
    band_points: int = 51,
    progress: Progress | None = None,
) -> None:
    """Mesh, total DOS, thermal properties and the band structure on the path of seekpath."""
    report = progress or silent
    report("properties", 0.0)
    run_mesh(ph, mesh)
    report("properties", 0.3)
    ph.run_total_dos()
    report("properties", 0.6)
    chosen = np.arange(0.0, 1001.0, 10.0) if temperatures is None else temperatures
    ph.run_thermal_properties(temperatures=chosen, exclude_gamma_acoustic=True)
    report("properties", 0.7)
    ph.auto_band_structure(npoints=band_points)
    report("properties", 1.0)


def run_mesh(ph: Phonopy, mesh: float | Sequence[int]) -> None:
    """Frequencies on a mesh around Γ, which has the symmetry of the crystal."""
    with quiet_meshes():
        ph.run_mesh(mesh, is_gamma_center=True)


@contextmanager
def quiet_meshes() -> Iterator[None]:
    """Without phonopy's remarks on which of its equivalent grids it takes for a mesh."""
    from phonopy.phonon.mesh import MeshGRGridFallbackWarning, MeshSymmetryFallbackWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeshGRGridFallbackWarning)
        warnings.simplefilter("ignore", MeshSymmetryFallbackWarning)
        yield


def commensurate_points(ph: Phonopy) -> NDArray[np.float64]:
    """Wave vectors (n, 3) of the supercell, where frequencies are no interpolation; in units of the primitive cell."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    return get_commensurate_points(np.rint(np.linalg.inv(ph.primitive.primitive_matrix)).astype(np.int64))


def imaginary_modes(ph: Phonopy, tolerance: float = _SLIGHTLY_IMAGINARY) -> list[ImaginaryMode]:
    """Modes below -tolerance (THz) at the supercell's wave vectors, on the mesh and on the bands; the lowest first."""
    from phonopy.phonon.mesh import Mesh

    exact = commensurate_points(ph)
    frequencies = ph.run_qpoints(exact).frequencies
    sampled: list[tuple[Any, Any, bool]] = [(q, f, True) for q, f in zip(exact, frequencies, strict=True)]
    if isinstance(ph.mesh, Mesh):
        sampled += [(q, f, False) for q, f in zip(ph.mesh.qpoints, ph.mesh.frequencies, strict=True)]
    if ph.band_structure is not None:
        for path, rows in zip(ph.band_structure.qpoints, ph.band_structure.frequencies, strict=True):
            sampled += [(q, f, False) for q, f in zip(path, rows, strict=True)]
    modes: dict[tuple[Any, int], ImaginaryMode] = {}
    for q, row, commensurate in sampled:
        point = tuple(np.round(q, 6).tolist())
        for band in np.flatnonzero(np.asarray(row) < -tolerance).tolist():
            modes.setdefault((point, band), ImaginaryMode(point, band, float(row[band]), commensurate))
    return sorted(modes.values(), key=lambda mode: mode.frequency)


def warn_of_imaginary_modes(ph: Phonopy, tolerance: float = _SLIGHTLY_IMAGINARY, stacklevel: int = 3) -> None:
    """A PhononWarning with the lowest imaginary modes, if there are any."""
    modes = imaginary_modes(ph, tolerance)
    if not modes:
        return
    exact = [mode for mode in modes if mode.commensurate]
    text = f"imaginary modes: the lowest is {_describe(modes[0])}"
    if exact:
        text += f"; {len(exact)} at wave vectors of the supercell, the lowest {_describe(exact[0])}"
        text += ": the structure is a saddle point of this model, thermal properties leave these modes out"
    else:
        text += "; none at wave vectors of the supercell: a larger supercell (or nac) may mend it"
    warnings.warn(text, PhononWarning, stacklevel=stacklevel)


def _describe(mode: ImaginaryMode) -> str:
    q = ", ".join(f"{value:.4g}" for value in mode.q)
    return f"{abs(mode.frequency):.3g}i THz at q = ({q})"


def _warn_of_forces(mlp: PotNetMLP, ph: Phonopy) -> None:
    (found,) = mlp.results([ph.unitcell], stress=False)
    assert found.forces is not None
    largest = float(np.linalg.norm(found.forces, axis=1).max())
    if largest > _RESIDUAL_FORCE:
        warnings.warn(
            f"the structure is not relaxed in this model: forces up to {largest:.2g} eV/Å; pass relax=True",
            PhononWarning,
            stacklevel=3,
        )


def silent(stage: str, part: float) -> None:
    """No progress wanted."""
