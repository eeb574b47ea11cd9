"""``reference_values.json`` as the tests use it; ``reference.py`` writes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ase_potnet import lattice

TABLE = json.loads(Path(__file__).with_name("reference_values.json").read_text())
PAIR_SUMS, EPSTEIN = TABLE["pair_sums"], TABLE["epstein_zeta"]


def build(potential: str):
    """A potential from its constructor call."""
    return eval(potential, vars(lattice))


def case_id(case: dict) -> str:
    """E.g. ``skewed basis-TTF``."""
    return f"{case['cell_name']}-{''.join('FT'[periodic] for periodic in case['pbc'])}"


def geometry(case: dict, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """positions, cell, pbc: an atom at every displacement, the first of which is the origin."""
    positions = torch.tensor([[0.0] * 3, *case["displacements"][1:]], dtype=dtype)
    return positions, torch.tensor(case["cell"], dtype=dtype), tuple(case["pbc"])


def expected(case: dict, potentials: list[str]) -> torch.Tensor:
    """Sums of the atoms of ``geometry`` with the first atom, (n_displacements, n_potentials)."""
    return torch.tensor([[float(v) for v in case["values"][p]] for p in potentials], dtype=torch.float64).T
