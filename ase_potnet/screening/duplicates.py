"""Crystals that occur more than once."""

from __future__ import annotations

from typing import Any

from ase_potnet.screening.sources import Candidate


class Duplicates:
    """Remembers crystals and finds those that were there before.

    Args:
        how: "exact": equal to the last bit; "structure": the same to pymatgen's StructureMatcher, whatever the cell.
    """

    def __init__(self, how: str) -> None:
        self._how = how
        self._digests: dict[str, str] = {}
        self._structures: dict[str, list[tuple[str, Any]]] = {}

    def other(self, candidate: Candidate) -> str | None:
        """The id of the first crystal that is the same; None, and the crystal is remembered."""
        if candidate.digest in self._digests:
            return self._digests[candidate.digest]
        found = self._match(candidate) if self._how == "structure" else None
        self._digests[candidate.digest] = found or candidate.id
        return found

    def _match(self, candidate: Candidate) -> str | None:
        from pymatgen.analysis.structure_matcher import StructureMatcher
        from pymatgen.core.structure import Structure

        atoms = candidate.atoms
        if atoms is None or not atoms.pbc.all():
            return None
        structure = Structure(atoms.cell.array, atoms.numbers, atoms.positions, coords_are_cartesian=True)
        alike = self._structures.setdefault(structure.composition.reduced_formula, [])
        matcher = StructureMatcher()
        for name, other in alike:
            if matcher.fit(structure, other):
                return name
        alike.append((candidate.id, structure))
        return None
