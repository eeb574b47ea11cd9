"""Formation energy and energy above the hull of a reference set."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ase.formula import Formula

from ase_potnet.readers.files import iter_json, open_text, plain_suffix
from ase_potnet.screening.engine import Ask, Steps, as_tuple
from ase_potnet.screening.failures import NO_REFERENCE, ScreeningFailure
from ase_potnet.screening.store import DONE, records
from ase_potnet.screening.tasks import Crystal

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram

Reference = tuple[str, float]  # formula, energy per atom in eV


@dataclass(frozen=True)
class Hull:
    """Formation energy and energy above the convex hull of reference phases, by pymatgen's ``PhaseDiagram``.

    Energies of the references must come from the same model: screen them first, and name that file.

    reference: results of an earlier screening (.db), a CSV file with the columns formula and energy_per_atom (eV; rows
        with a status other than "done" are left out), or a JSON list of pymatgen's ``ComputedEntry``
    """

    reference: str = ""
    name: ClassVar[str] = "hull"
    columns: ClassVar[Mapping[str, str]] = {"formation_energy": "eV/atom", "energy_above_hull": "eV/atom"}

    def __post_init__(self) -> None:
        if not self.reference or not Path(self.reference).is_file():
            raise ValueError(f"hull.reference: wanted a file (.db, .csv or .json), got {self.reference!r}")
        if not len(self.hulls):  # read before the first crystal
            raise ValueError(f"hull.reference: {self.reference} holds no phase with an energy")
        import_module("pymatgen.analysis.phase_diagram")  # missed before the first crystal

    def contents(self) -> str:
        """Hash of the file."""
        with Path(self.reference).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def hulls(self) -> Hulls:
        """The reference phases, read once."""
        return Hulls(list(read_references(Path(self.reference))))

    def run(self, crystal: Crystal) -> Steps:
        """A question only if no task before has found the energy."""
        energy = crystal.values.get("energy")
        if energy is None:
            (result,) = yield Ask([as_tuple(crystal.atoms)], forces=False, stress=False)
            energy = result.energy
        formation, above = self.hulls.place(crystal.atoms.get_chemical_formula("hill"), energy / len(crystal.atoms))
        return {"formation_energy": formation, "energy_above_hull": above}


class Hulls:
    """Phase diagrams of the chemical systems of a set of phases, made when they are first wanted."""

    def __init__(self, references: list[Reference]) -> None:
        self._references = [(formula, energy, frozenset(Formula(formula).count())) for formula, energy in references]
        self._diagram = lru_cache(maxsize=256)(self._make)

    def __len__(self) -> int:
        return len(self._references)

    def place(self, formula: str, energy_per_atom: float) -> tuple[float, float]:
        """Formation energy and energy above the hull, eV/atom; below zero for a phase below the hull.

        Raises ScreeningFailure where an element has no reference.
        """
        entry = _entry(formula, energy_per_atom)
        diagram = self._diagram(frozenset(Formula(formula).count()))
        above = diagram.get_e_above_hull(entry, allow_negative=True)
        assert above is not None
        return float(diagram.get_form_energy_per_atom(entry)), float(above)

    def _make(self, system: frozenset[str]) -> PhaseDiagram:
        from pymatgen.analysis.phase_diagram import PhaseDiagram

        inside = [(formula, energy) for formula, energy, elements in self._references if elements <= system]
        pure = {next(iter(elements)) for _, _, elements in self._references if len(elements) == 1}
        if missing := sorted(system - pure):
            raise ScreeningFailure(NO_REFERENCE, f"no reference phase of the element {', '.join(missing)}")
        return PhaseDiagram([_entry(formula, energy) for formula, energy in inside])


def _entry(formula: str, energy_per_atom: float) -> Any:
    from pymatgen.core.composition import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(formula)
    return ComputedEntry(composition, energy_per_atom * composition.num_atoms)


def read_references(path: Path) -> Iterator[Reference]:
    """Formula and energy per atom of every phase of a file. Raises ValueError naming hull.reference."""
    suffix = plain_suffix(path)
    if suffix == ".db":
        for record in records(path, structures=False):
            if record.status == DONE and "energy_per_atom" in record.values:
                yield record.formula, float(record.values["energy_per_atom"])
        return
    try:
        with open_text(path) as stream:
            if suffix == ".csv":
                for row in csv.DictReader(stream):
                    if row.get("status", DONE) != DONE or not row["energy_per_atom"].strip():
                        continue  # of a crystal that failed
                    yield _reference(row["formula"], float(row["energy_per_atom"]))
            else:
                for item in iter_json(stream, path.name):
                    formula = "".join(f"{symbol}{amount:g}" for symbol, amount in item["composition"].items())
                    yield _reference(formula, float(item["energy"]) / sum(item["composition"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"hull.reference: {path} has no formula and energy_per_atom (CSV) or composition and energy (JSON)"
        ) from error
    except ValueError as error:
        raise ValueError(f"hull.reference: {path}: {error}") from error


def _reference(formula: str, energy_per_atom: float) -> Reference:
    if not math.isfinite(energy_per_atom) or not Formula(formula).count():
        raise ValueError(f"no phase with an energy: {formula!r}, {energy_per_atom:g}")
    return formula, energy_per_atom
