"""Phonons at the DFT geometry against real DFT force sets, beside other universal potentials in the same run.

`python benchmarks/phonons.py FOLDER [--model NAME] [--sets reference,spacegroups] [--most 12] [--output table.csv]`

FOLDER holds force sets of phonopy in the layout of its own examples and tests: `reference/` (phonopy yaml files, some
with a FORCE_SETS file beside them), `examples/<crystal>/` (phonopy_disp.yaml and FORCE_SETS) and `spacegroups/`
(POSCAR_<group> and FORCE_SETS_<group>). Every potential is asked for the forces on the displaced supercells of the DFT
calculation, so that displacements, symmetry and the fit of the force constants are the same; without NAC.

Per crystal: mean absolute error of the frequencies at the wave vectors of the supercell (THz), errors of the heat
capacity (J/K/mol) and the free energy (meV) of an atom at 300 K.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import phonopy
import torch
from ase import Atoms
from phonopy import Phonopy
from phonopy.file_IO import parse_FORCE_SETS
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.interface.calculator import read_crystal_structure

from ase_potnet.integrations import PotNetMLP

# names of the files in reference/; one of each crystal
REFERENCE = {
    "NaCl": "phonopy_params_NaCl-1.00.yaml.xz",
    "SnO2": "phonopy_disp_SnO2.yaml",
    "TiO2 rutile": "phonopy_disp_TiO2.yaml",
    "Si": "phonopy_params_Si.yaml",
    "TiPN3": "phonopy_params_TiPN3.yaml.xz",
    "Zr3N4": "phonopy_params_Zr3N4.yaml",
    "SrTiO3": "phonopy_SrTiO3.yaml.xz",
}
KJ_PER_MOL = 1 / 96.48533  # eV
TEMPERATURE = 300.0
MOST_UNEXPLAINED = 0.15
Forces = Callable[[list], np.ndarray]


def main() -> None:
    arguments = parse_arguments()
    warnings.simplefilter("ignore")  # phonopy's remarks on its own files
    torch.set_num_threads(arguments.threads)
    models = potentials(arguments.model, arguments.peers.split(","))
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {arguments.threads} thread(s)\n")
    rows = []
    head = f"| {'crystal':20} | atoms | DFT max |"
    for name in models:
        head += f" {name[:16]:>16}: THz |  J/K/mol |     meV |"
    print(head + "\n|" + "---|" * (3 + 3 * len(models)))
    for name, count, load_set in force_sets(Path(arguments.folder), arguments.sets.split(",")):
        if count > arguments.most:
            print(f"{name}: left out, {count} displacements (--most {arguments.most})", file=sys.stderr)
            continue
        try:
            dft = load_set()
        except ValueError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        label = name if count == 0 else f"{dft.unitcell.reduced_formula} {name}"
        rows.append(compare(label, dft, models))
        print(rows[-1].line(), flush=True)
    print(summary(rows, models))
    if arguments.output:
        write(Path(arguments.output), rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="force sets")
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--sets", default="reference,examples,spacegroups")
    parser.add_argument("--most", type=int, default=50, help="displacements of a crystal, at most")
    parser.add_argument("--peers", default="chgnet,sevennet-0", help="run where they are installed; '' for none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", help="CSV file")
    return parser.parse_args()


def potentials(model: str, peers: list[str]) -> dict[str, Forces]:
    """Forces on a list of supercells (n, N, 3), by name; a peer that is not installed is left out with a message."""
    mlp = PotNetMLP(model)
    found: dict[str, Forces] = {"ase_potnet": lambda cells: mlp.evaluate(cells)[1]}
    for name in filter(None, peers):
        try:
            calculator = PEERS[name]()
        except ImportError as error:
            print(f"{name}: left out, not installed ({error})", file=sys.stderr)
            continue
        found[name] = with_ase(calculator)
    return found


def chgnet():
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def sevennet():
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


PEERS = {"chgnet": chgnet, "sevennet-0": sevennet}


def with_ase(calculator) -> Forces:
    def forces(cells) -> np.ndarray:
        found = []
        for cell in cells:
            atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True, calculator=calculator)
            found.append(atoms.get_forces())
        return np.array(found, dtype=float)

    return forces


def force_sets(folder: Path, kinds: list[str]) -> Iterator[tuple[str, int, Callable[[], Phonopy]]]:
    """Name, number of displacements and DFT phonons of every crystal. Absent folders are left out with a message."""
    for kind in kinds:
        if not (folder / kind).is_dir():
            print(f"{folder / kind}: no such folder, left out", file=sys.stderr)
            continue
        if kind == "reference":
            for name, file in REFERENCE.items():
                forces = folder / kind / f"FORCE_SETS_{name.split()[0]}"
                yield name, 0, partial(load, folder / kind / file, forces if "disp" in file else None)
        elif kind == "examples":
            for path in sorted((folder / kind).iterdir()):
                yield path.name, 0, partial(load, path / "phonopy_disp.yaml", path / "FORCE_SETS")
        else:
            for path in sorted((folder / kind).glob("POSCAR_*")):
                group = path.name.removeprefix("POSCAR_")
                file = path.with_name(f"FORCE_SETS_{group}")
                yield group, int(file.read_text().split(maxsplit=2)[1]), partial(of_space_group, path, file)


def load(file: Path, forces: Path | None) -> Phonopy:
    ph = phonopy.load(file, force_sets_filename=forces, is_nac=False, symmetrize_fc=False, produce_fc=False)
    ph.nac_params = None
    return ph


def of_space_group(poscar: Path, file: Path) -> Phonopy:
    """The supercell is not written down: the one of highest symmetry whose force constants explain the forces."""
    cell, _ = read_crystal_structure(poscar, interface_mode="vasp")
    n_atoms = int(file.read_text().split(maxsplit=1)[0])
    ratio = n_atoms // len(cell)
    lengths = np.linalg.norm(cell.cell, axis=1)
    shapes = [n for n in product(range(1, ratio + 1), repeat=3) if np.prod(n) == ratio]
    roundest = sorted(shapes, key=lambda n: np.ptp(np.log(lengths * n)))[:3]
    guesses = [Phonopy(cell, supercell_matrix=shape, primitive_matrix="auto") for shape in roundest]
    most = max(len(ph.symmetry.symmetry_operations["rotations"]) for ph in guesses)
    guesses = [ph for ph in guesses if len(ph.symmetry.symmetry_operations["rotations"]) == most]
    for ph in guesses:
        ph.dataset = parse_FORCE_SETS(natom=n_atoms, filename=file)
    rest, _, best = min((unexplained(ph), index, ph) for index, ph in enumerate(guesses))
    if rest > MOST_UNEXPLAINED:
        raise ValueError(f"{file}: no diagonal supercell found; {rest:.0%} of the forces are not harmonic")
    return best


def unexplained(ph: Phonopy) -> float:
    """The part of the forces that neither harmonic force constants nor forces of the crystal at rest give."""
    ph.produce_force_constants(fc_calculator="symfc")
    moved = [(entry["number"], entry["displacement"]) for entry in ph.dataset["first_atoms"]]
    fitted = np.array([-np.einsum("jab,a->jb", ph.force_constants[atom], shift) for atom, shift in moved])
    rest = (ph.forces - fitted).mean(axis=0)
    return float(np.linalg.norm(ph.forces - fitted - rest) / np.linalg.norm(ph.forces - rest))


@dataclass(frozen=True)
class Row:
    """Of one crystal: errors (THz, J/K/mol, meV) and seconds of every potential."""

    name: str
    atoms: int
    highest: float
    errors: dict[str, tuple[float, float, float]]
    seconds: dict[str, float]

    def line(self) -> str:
        text = f"| {self.name:20} | {self.atoms:5d} | {self.highest:7.2f} |"
        return text + "".join(f" {f:21.3f} | {c:8.3f} | {e:7.2f} |" for f, c, e in self.errors.values())


def compare(name: str, dft: Phonopy, models: dict[str, Forces]) -> Row:
    expected = harmonic(dft, dft.forces)
    cells = dft.supercells_with_displacements
    errors, seconds = {}, {}
    for model, forces in models.items():
        start = time.perf_counter()
        found = harmonic(dft, forces(cells))
        seconds[model] = time.perf_counter() - start
        errors[model] = (
            float(np.abs(found[0] - expected[0]).mean()),
            float(found[1] - expected[1]),
            float(found[2] - expected[2]),
        )
    return Row(name, len(dft.primitive), float(expected[0].max()), errors, seconds)


def harmonic(ph: Phonopy, forces: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Frequencies at the wave vectors of the supercell, and heat capacity (J/K/mol) and free energy (meV) an atom."""
    ph.forces = forces
    ph.produce_force_constants(calculate_full_force_constants=False, fc_calculator="symfc")
    points = get_commensurate_points(np.rint(np.linalg.inv(ph.primitive.primitive_matrix)).astype(int))
    frequencies = ph.run_qpoints(points).frequencies
    ph.run_mesh(50.0, is_gamma_center=True)
    thermal = ph.run_thermal_properties(temperatures=[TEMPERATURE], exclude_gamma_acoustic=True)
    n_atoms = len(ph.primitive)
    free_energy = 1e3 * KJ_PER_MOL * thermal.free_energy[0] / n_atoms
    return frequencies, thermal.heat_capacity[0] / n_atoms, free_energy


def summary(rows: list[Row], models: dict[str, Forces]) -> str:
    lines = [""]
    for model in models:
        f, c, e = np.array([row.errors[model] for row in rows]).T
        lines.append(
            f"{model}: {len(rows)} crystals, frequencies {f.mean():.3f} THz (median {np.median(f):.3f}), heat capacity "
            f"{np.abs(c).mean():.3f} J/K/mol, free energy {np.abs(e).mean():.2f} meV an atom, "
            f"{sum(row.seconds[model] for row in rows):.0f} s"
        )
    return "\n".join(lines)


def write(file: Path, rows: list[Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = ("frequencies (THz)", "heat capacity (J/K/mol)", "free energy (meV)")
        models = list(rows[0].errors) if rows else []
        writer.writerow(["crystal", "atoms", *(f"{model} {column}" for model in models for column in columns)])
        for row in rows:
            writer.writerow([row.name, row.atoms, *(f"{v:.6g}" for values in row.errors.values() for v in values)])


if __name__ == "__main__":
    main()
