"""Phonons at the DFT geometry against real DFT force sets, beside other universal potentials.

`python benchmarks/phonons.py FOLDER [--model NAME] [--only potnet,chgnet,sevennet-0] [--results phonons.json]`

FOLDER holds force sets of phonopy in the layout of its own examples and tests: `reference/` (phonopy yaml files, some
with a FORCE_SETS file beside them), `examples/<crystal>/` (phonopy_disp.yaml and FORCE_SETS) and `spacegroups/`
(POSCAR_<group> and FORCE_SETS_<group>). Every potential is asked for the forces on the displaced supercells of the DFT
calculation, so that displacements, symmetry and the fit of the force constants are the same; without NAC.

Per crystal: mean absolute error of the frequencies at the wave vectors of the supercell (THz), errors of the heat
capacity (J/K/mol) and the free energy (meV) of an atom at 300 K.

Results are kept in a JSON file after every potential of every crystal, and not calculated again while the version of
the potential (for models of this project the hash of the weights) is the same. `--only potnet` calculates one column,
the table shows all that are known.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import torch
from ase import Atoms
from phonopy import Phonopy
from phonopy.file_IO import parse_FORCE_SETS
from phonopy.interface.calculator import read_crystal_structure

from ase_potnet.integrations.harmonic import commensurate_points

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
RESULTS = Path(__file__).parent / "phonons.json"
PACKAGES = {"chgnet": "chgnet", "sevennet-0": "sevenn"}
ERRORS = ("frequencies", "heat_capacity", "free_energy")
Forces = Callable[[list], np.ndarray]


@dataclass(frozen=True)
class ForceSet:
    """One DFT calculation.

    work: displacements × atoms of the supercell, 0 where that is not known before it is read
    load: reads it; given the supercell's matrix where that is known from before
    """

    name: str
    work: int
    load: Callable[[list | None], Phonopy]


@dataclass(frozen=True)
class Harmonic:
    """Frequencies at the supercell's wave vectors (THz); of an atom, heat capacity (J/K/mol), free energy (meV)."""

    frequencies: np.ndarray
    heat_capacity: float
    free_energy: float


def main() -> None:
    arguments = parse_arguments()
    warnings.simplefilter("ignore")  # phonopy's remarks on its own files
    torch.set_num_threads(arguments.threads)
    file = Path(arguments.results)
    known = json.loads(file.read_text()) if file.exists() else {}
    potentials = chosen(arguments.only.split(","), arguments.model)
    sets = list(force_sets(Path(arguments.folder), arguments.sets.split(",")))
    for one in sets:
        if one.work > arguments.most:
            print(f"{one.name}: left out, {one.work} displaced atoms (--most {arguments.most})", file=sys.stderr)
            continue
        try:
            changed = add(known, one, potentials)
        except ValueError as error:
            print(f"{one.name}: left out, {error}", file=sys.stderr)
            continue
        if changed:
            save(file, known)
    names = {one.name for one in sets if one.work <= arguments.most}
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {arguments.threads} thread(s)\n")
    print(table({name: known[name] for name in known if name in names}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="force sets")
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--only", default="potnet,chgnet,sevennet-0", help="potentials to calculate; others stay")
    parser.add_argument("--sets", default="reference,examples,spacegroups")
    parser.add_argument("--most", type=int, default=600, help="displaced atoms of a space-group crystal, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", default=str(RESULTS), help="JSON file, read and written")
    return parser.parse_args()


def chosen(names: list[str], model: str) -> dict[str, tuple[str, Callable[[], Forces]]]:
    """Version and maker of the wanted potentials; a peer that is not installed is left out with a message."""
    found: dict[str, tuple[str, Callable[[], Forces]]] = {}
    for name in names:
        if name == "potnet":
            from ase_potnet.pretrained import model_info

            found[name] = (model_info(model).sha256[:16], cache(partial(potnet, model)))
            continue
        try:
            found[name] = (version(PACKAGES[name]), cache(partial(with_ase, PEERS[name])))
        except PackageNotFoundError:
            print(f"{name}: left out, not installed", file=sys.stderr)
    return found


def potnet(model: str) -> Forces:
    from ase_potnet.integrations import PotNetMLP

    mlp = PotNetMLP(model)
    return lambda cells: mlp.evaluate(cells)[1]


def chgnet():
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def sevennet():
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


PEERS = {"chgnet": chgnet, "sevennet-0": sevennet}


def with_ase(make: Callable[[], Any]) -> Forces:
    calculator = make()

    def forces(cells) -> np.ndarray:
        found = []
        for cell in cells:
            atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True, calculator=calculator)
            found.append(atoms.get_forces())
        return np.array(found, dtype=float)

    return forces


def add(known: dict[str, Any], one: ForceSet, potentials: dict[str, tuple[str, Callable[[], Forces]]]) -> bool:
    """What is missing of a crystal. Raises ValueError for force sets that make no sense."""
    entry = known.get(one.name, {"potentials": {}})
    missing = [name for name, (of, _) in potentials.items() if entry["potentials"].get(name, {}).get("version") != of]
    if not missing:
        return False
    dft = one.load(entry.get("supercell"))
    if "dft" not in entry:
        expected = harmonic(dft, dft.forces)
        entry |= {
            "atoms": len(dft.primitive),
            "supercell": dft.supercell_matrix.tolist(),
            "supercell_atoms": len(dft.supercell),
            "displacements": len(dft.supercells_with_displacements),
            "dft": {
                "frequencies": expected.frequencies.round(4).tolist(),
                "heat_capacity": round(expected.heat_capacity, 4),
                "free_energy": round(expected.free_energy, 4),
            },
        }
    for name in missing:
        of, make = potentials[name]
        found = harmonic(dft, make()(dft.supercells_with_displacements))
        entry["potentials"][name] = errors(found, entry["dft"]) | {"version": of}
        print(f"{one.name} {name}: {entry['potentials'][name]}", file=sys.stderr, flush=True)
    known[one.name] = entry
    return True


def errors(found: Harmonic, dft: dict[str, Any]) -> dict[str, float]:
    return {
        "frequencies": round(float(np.abs(found.frequencies - np.array(dft["frequencies"])).mean()), 4),
        "heat_capacity": round(found.heat_capacity - dft["heat_capacity"], 4),
        "free_energy": round(found.free_energy - dft["free_energy"], 4),
    }


def save(file: Path, known: dict[str, Any]) -> None:
    """One line a crystal; under another name first, so that a kill leaves a whole file."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(known.items()))
    partial_file = file.with_suffix(".partial")
    partial_file.write_text("{\n" + rows + "\n}\n")
    partial_file.replace(file)


def force_sets(folder: Path, kinds: list[str]) -> Iterator[ForceSet]:
    """Every crystal. Absent folders are left out with a message."""
    for kind in kinds:
        if not (folder / kind).is_dir():
            print(f"{folder / kind}: no such folder, left out", file=sys.stderr)
        elif kind == "reference":
            for name, file in REFERENCE.items():
                forces = folder / kind / f"FORCE_SETS_{name.split()[0]}"
                yield ForceSet(name, 0, partial(load, folder / kind / file, forces if "disp" in file else None))
        elif kind == "examples":
            for path in sorted((folder / kind).iterdir()):
                name = path.name.replace("-", " ")
                yield ForceSet(name, 0, partial(load, path / "phonopy_disp.yaml", path / "FORCE_SETS"))
        else:
            for path in sorted((folder / kind).glob("POSCAR_*")):
                group = path.name.removeprefix("POSCAR_")
                file = path.with_name(f"FORCE_SETS_{group}")
                n_atoms, n_displacements = (int(word) for word in file.read_text().split(maxsplit=2)[:2])
                formula = read_crystal_structure(path, interface_mode="vasp")[0].reduced_formula
                work = n_atoms * n_displacements
                yield ForceSet(f"{formula} {group}", work, partial(of_space_group, path, file, n_atoms))


def load(file: Path, forces: Path | None, supercell: list | None = None) -> Phonopy:
    ph = phonopy.load(file, force_sets_filename=forces, is_nac=False, symmetrize_fc=False, produce_fc=False)
    ph.nac_params = None
    return ph


def of_space_group(poscar: Path, file: Path, n_atoms: int, supercell: list | None = None) -> Phonopy:
    """The supercell is not written down: the one of highest symmetry whose force constants explain the forces."""
    cell, _ = read_crystal_structure(poscar, interface_mode="vasp")
    if supercell is not None:
        ph = Phonopy(cell, supercell_matrix=supercell, primitive_matrix="auto")
        ph.dataset = parse_FORCE_SETS(natom=n_atoms, filename=file)
        return ph
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


def harmonic(ph: Phonopy, forces: np.ndarray) -> Harmonic:
    ph.forces = forces
    ph.produce_force_constants(calculate_full_force_constants=False, fc_calculator="symfc")
    frequencies = ph.run_qpoints(commensurate_points(ph)).frequencies
    ph.run_mesh(50.0, is_gamma_center=True)
    thermal = ph.run_thermal_properties(temperatures=[TEMPERATURE], exclude_gamma_acoustic=True)
    n_atoms = len(ph.primitive)
    free_energy = 1e3 * KJ_PER_MOL * float(thermal.free_energy[0]) / n_atoms
    return Harmonic(frequencies, float(thermal.heat_capacity[0]) / n_atoms, free_energy)


def table(known: dict[str, Any]) -> str:
    """Markdown: the mean errors of every potential over the crystals that all of them have, then every crystal."""
    names = [name for name in ("potnet", *PEERS) if any(name in entry["potentials"] for entry in known.values())]
    whole = [entry["potentials"] for entry in known.values() if all(name in entry["potentials"] for name in names)]
    lines = [f"Mean absolute errors over {len(whole)} crystals (in brackets: mean errors)", ""]
    lines += ["| potential | frequencies, THz | median | heat capacity, J/K/mol | free energy, meV/atom |"]
    lines += ["|---|---|---|---|---|"]
    for name in names if whole else []:
        f, c, e = (np.array([one[name][key] for one in whole]) for key in ERRORS)
        lines.append(
            f"| {name} | {f.mean():.3f} | {np.median(f):.3f} | {np.abs(c).mean():.3f} ({c.mean():+.3f}) | "
            f"{np.abs(e).mean():.2f} ({e.mean():+.2f}) |"
        )
    lines += ["", "Errors of frequencies, THz", ""]
    lines += ["| crystal | atoms | displacements | highest, DFT | " + " | ".join(names) + " |"]
    lines += ["|" + "---|" * (4 + len(names))]
    for crystal, entry in known.items():
        found = [entry["potentials"].get(name) for name in names]
        cells = " | ".join("" if one is None else f"{one['frequencies']:.3f}" for one in found)
        highest = np.max(entry["dft"]["frequencies"])
        lines.append(f"| {crystal} | {entry['atoms']} | {entry['displacements']} | {highest:.2f} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
