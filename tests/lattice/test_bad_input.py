"""Whatever is wrong with an argument: a ValueError that names it, never a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ase_potnet.lattice import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    Potential,
    ScreenedCoulomb,
    epstein_zeta,
    pair_sums,
    site_sums,
)

NAN, INF = float("nan"), float("inf")
POSITIONS = torch.tensor([[0.0, 0.0, 0.0], [1.5, 1.7, 2.1]], dtype=torch.float64)
CELL = torch.tensor([[4.0, 0.0, 0.0], [0.3, 4.2, 0.0], [0.1, -0.4, 4.4]], dtype=torch.float64)
SOURCES = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
FLAT = CELL * torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64)
THIN = CELL * torch.tensor([[1.0], [1.0], [1e-10]], dtype=torch.float64)
RAGGED = {
    "positions": torch.cat((POSITIONS, POSITIONS)),
    "cell": torch.stack((CELL, CELL)),
    "sources": torch.cat((SOURCES, SOURCES)),
    "batch": torch.tensor([0, 0, 1, 1]),
}


def with_value(x: torch.Tensor, value: float) -> torch.Tensor:
    x = x.clone()
    x.view(-1)[-1] = value
    return x


def coplanar() -> torch.Tensor:
    cell = CELL.clone()
    cell[2] = cell[0] - 2 * cell[1]
    return cell


def call_pair_sums(*, sources=None, **keywords):
    arguments = {"positions": POSITIONS, "cell": CELL, "potentials": [Coulomb(), London()]} | keywords
    return pair_sums(arguments.pop("positions"), arguments.pop("cell"), arguments.pop("potentials"), **arguments)


def call_site_sums(**keywords):
    arguments = {
        "sources": SOURCES,
        "positions": POSITIONS,
        "cell": CELL,
        "potentials": [Coulomb(), London()],
    } | keywords
    first = [arguments.pop(name) for name in ("sources", "positions", "cell", "potentials")]
    return site_sums(*first, **arguments)


BOTH = pytest.mark.parametrize("call", [call_pair_sums, call_site_sums])

# what is wrong: (argument that the message must name, keywords)
WRONG = {
    "NaN position": ("positions", {"positions": with_value(POSITIONS, NAN)}),
    "infinite position": ("positions", {"positions": with_value(POSITIONS, INF)}),
    "two components": ("positions", {"positions": POSITIONS[:, :2]}),
    "positions of one dimension": ("positions", {"positions": POSITIONS[0]}),
    "positions of four dimensions": ("positions", {"positions": POSITIONS[None, None]}),
    "integer positions": ("positions", {"positions": POSITIONS.long()}),
    "half-precision positions": (
        "positions",
        {"positions": POSITIONS.half(), "cell": CELL.half(), "sources": SOURCES.half()},
    ),
    "complex positions": ("positions", {"positions": POSITIONS.to(torch.complex128)}),
    "positions as lists": ("positions", {"positions": POSITIONS.tolist()}),
    "no atoms": ("positions", {"positions": POSITIONS[:0], "sources": SOURCES[:0]}),
    "coincident atoms": ("positions", {"positions": torch.zeros(2, 3, dtype=torch.float64)}),
    "atoms coincident with an image": (
        "positions",
        {"positions": torch.stack((POSITIONS[1], POSITIONS[1] + CELL[0] - 3 * CELL[2]))},
    ),
    "coincident atoms of a molecule": ("positions", {"positions": POSITIONS[[1, 1]], "pbc": False}),
    "NaN in the cell": ("cell", {"cell": with_value(CELL, NAN)}),
    "infinity in the cell": ("cell", {"cell": with_value(CELL, INF)}),
    "zero periodic vector": ("cell", {"cell": FLAT}),
    "zero cell": ("cell", {"cell": torch.zeros(3, 3, dtype=torch.float64), "pbc": (True, False, False)}),
    "coplanar vectors": ("cell", {"cell": coplanar()}),
    "parallel vectors of a slab": ("cell", {"cell": CELL[[0, 0, 2]], "pbc": (True, True, False)}),
    "cell of two rows": ("cell", {"cell": CELL[:2]}),
    "cell with a batch dimension": ("cell", {"cell": CELL[None]}),
    "cell of another dtype": ("cell", {"cell": CELL.float()}),
    "integer cell": ("cell", {"cell": CELL.long()}),
    "cell too thin to sum over": ("cell", {"cell": THIN}),
    "cell as an array": ("cell", {"cell": CELL.numpy()}),
    "cell on another device": ("cell", {"cell": CELL.to("meta")}),
    "two flags": ("pbc", {"pbc": (True, False)}),
    "flags of another batch": ("pbc", {"pbc": torch.ones(2, 3, dtype=torch.bool)}),
    "flags that are no flags": ("pbc", {"pbc": (2, 0, 1)}),
    "text for flags": ("pbc", {"pbc": "TTF"}),
    "zero tolerance": ("tolerance", {"tolerance": 0.0}),
    "negative tolerance": ("tolerance", {"tolerance": -1e-8}),
    "NaN tolerance": ("tolerance", {"tolerance": NAN}),
    "infinite tolerance": ("tolerance", {"tolerance": INF}),
    "tolerance beyond float64": ("tolerance", {"tolerance": 1e-20}),
    "tolerance beyond float32": (
        "tolerance",
        {
            "positions": POSITIONS.float(),
            "cell": CELL.float(),
            "sources": SOURCES.float(),
            "tolerance": 1e-12,
        },
    ),
    "text for tolerance": ("tolerance", {"tolerance": "tight"}),
    "no potentials": ("potentials", {"potentials": []}),
    "a name for a potential": ("potentials", {"potentials": ["Coulomb"]}),
    "a class for a potential": ("potentials", {"potentials": [Coulomb]}),
    "a function for a potential": ("potentials", {"potentials": [lambda r: 1 / r]}),
    "unsorted batch": ("batch", RAGGED | {"batch": torch.tensor([0, 1, 0, 1])}),
    "short batch": ("batch", RAGGED | {"batch": torch.tensor([0, 0, 1])}),
    "batch beyond the cells": ("batch", RAGGED | {"batch": torch.tensor([0, 0, 1, 2])}),
    "negative batch": ("batch", RAGGED | {"batch": torch.tensor([-1, -1, 0, 1])}),
    "batch of floats": ("batch", RAGGED | {"batch": torch.tensor([0.0, 0.0, 1.0, 1.0])}),
    "batch of two dimensions": ("batch", RAGGED | {"batch": torch.tensor([[0, 0], [1, 1]])}),
    "structure without atoms": ("positions|batch", RAGGED | {"cell": torch.stack((CELL,) * 3)}),
    "one cell for a batch": ("cell", RAGGED | {"cell": CELL}),
    "stacked positions beside a batch": (
        "positions",
        RAGGED | {"positions": torch.stack((POSITIONS, POSITIONS))},
    ),
    "coincident atoms in one structure": (
        "positions",
        RAGGED | {"positions": torch.cat((POSITIONS, POSITIONS[[0, 0]]))},
    ),
    "singular cell in one structure": ("cell", RAGGED | {"cell": torch.stack((CELL, FLAT))}),
    "one cell too thin to sum over": ("cell", RAGGED | {"cell": torch.stack((CELL, THIN))}),
}


@BOTH
@pytest.mark.parametrize("wrong", WRONG)
def test_message_names_the_argument(call, wrong):
    argument, keywords = WRONG[wrong]
    with pytest.raises(ValueError, match=rf"\b({argument})\b"):
        call(**keywords)


@BOTH
def test_good_input_passes(call):
    """The frame of the cases above is sound; a zero vector is legal where it is not periodic."""
    ragged = RAGGED if call is call_site_sums else {k: v for k, v in RAGGED.items() if k != "sources"}
    for keywords in (
        {},
        ragged,
        {"cell": FLAT, "pbc": (True, True, False)},
        {"cell": 0 * CELL, "pbc": False},
    ):
        assert call(**keywords).isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    {
        "NaN": with_value(SOURCES, NAN),
        "infinite": with_value(SOURCES, INF),
        "one short": SOURCES[:1],
        "one dimension": SOURCES[:, 0],
        "three dimensions": SOURCES[None],
        "other dtype": SOURCES.float(),
        "integers": SOURCES.long(),
        "list": SOURCES.tolist(),
        "other device": SOURCES.to("meta"),
    }.items(),
    ids=lambda item: item[0],
)
def test_message_names_the_sources(wrong):
    with pytest.raises(ValueError, match=r"\bsources\b"):
        call_site_sums(sources=wrong[1])


@pytest.mark.parametrize("n", [0, -1, 1.5, NAN, "6", None, True])
def test_exponent_must_be_a_positive_integer(n):
    with pytest.raises(ValueError, match=r"\bn\b"):
        InversePower(n)
    with pytest.raises(ValueError, match=r"\bn\b"):
        epstein_zeta(n, POSITIONS, CELL)


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INF, "long", None])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("alpha", Pauli),
        ("alpha", ScreenedCoulomb),
        ("alpha", lambda alpha: Morse(alpha, 1.5)),
        ("sigma", LennardJones),
    ],
)
def test_lengths_must_be_positive(name, build, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        build(value)


@pytest.mark.parametrize("sigma", [1e-30, 1e30])
def test_powers_of_lengths_must_be_numbers(sigma):
    with pytest.raises(ValueError, match=r"\bsigma\b"):
        LennardJones(sigma)


@pytest.mark.parametrize("potentials", [Coulomb, 3, None, (Coulomb,)])
def test_potentials_are_objects(potentials):
    with pytest.raises(ValueError, match=r"\bpotentials\b"):
        pair_sums(POSITIONS, CELL, potentials)


def test_potentials_too_large_for_any_cut_off():
    with pytest.raises(ValueError, match=r"\bpotentials\b"):
        pair_sums(POSITIONS, CELL, Morse(50.0, 10.0))


@dataclass(frozen=True)
class Own(Potential):
    """A user's potential."""

    parts: tuple = ()

    def real_space(self, r):
        return sum(c * potential.real_space(r) for c, potential in self.parts)

    def terms(self):
        return self.parts


class Unhashable(Own):
    __hash__ = None


def test_terms_that_are_zero_are_left_out():
    generator = torch.Generator().manual_seed(0)
    positions = 4 * torch.rand(3, 3, dtype=torch.float64, generator=generator)
    cell = 4 * torch.eye(3, dtype=torch.float64)
    own = [Own(((2.0, Pauli(3.0)), (0.0, London()))), Own(((0.0, London()),)), London()]
    sums = pair_sums(positions, cell, own)
    wanted = pair_sums(positions, cell, (Pauli(3.0), London()))
    torch.testing.assert_close(sums[..., 0], 2 * wanted[..., 0], rtol=0, atol=3e-8)
    assert not sums[..., 1].any()
    torch.testing.assert_close(sums[..., 2], wanted[..., 1], rtol=0, atol=3e-8)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Own(((1.0, LennardJones(2.0)),)), r"terms of Own\(.* must be finite numbers with primitives"),
        (Own(((math.nan, London()),)), r"terms of Own\(.* must be finite"),
        (Own(), "none has a term that is not zero"),
        (Own(((0.0, London()),)), "none has a term that is not zero"),
        (Unhashable(((1.0, London()),)), "must be hashable, as frozen dataclasses are"),
    ],
)
def test_potentials_of_users(own, message):
    with pytest.raises(ValueError, match=f"^potentials.*{message}"):
        pair_sums(torch.rand(2, 3), 4 * torch.eye(3), own)


def test_wells_too_deep_for_numbers():
    with pytest.raises(ValueError, match=r"alpha \* r_e must be at most 700"):
        Morse(200.0, 5.0)


def test_exponents_of_numpy_are_numbers():
    assert InversePower(np.int64(6)) == InversePower(6)


@pytest.mark.parametrize("r_e", [NAN, INF, "long", None])
def test_equilibrium_distance_must_be_a_number(r_e):
    with pytest.raises(ValueError, match=r"\br_e\b"):
        Morse(1.5, r_e)


@pytest.mark.parametrize(
    ("argument", "keywords"),
    [
        ("displacement", {"displacement": with_value(POSITIONS, NAN)}),
        ("displacement", {"displacement": POSITIONS[:, :2]}),
        ("displacement", {"displacement": POSITIONS.long()}),
        ("displacement", {"displacement": [0.0, 0.0, 0.0]}),
        ("displacement", {"pbc": (True, True, False)}),  # not in the plane of the lattice
        ("cell", {"cell": FLAT}),
        ("cell", {"cell": CELL.float()}),
        ("cell", {"cell": with_value(CELL, NAN)}),
        ("phase", {"phase": torch.tensor([0.5, 0.5], dtype=torch.float64)}),
        ("phase", {"phase": torch.zeros(3, dtype=torch.float64, requires_grad=True)}),
        ("phase", {"phase": torch.tensor([0.5, 0.5, NAN], dtype=torch.float64)}),
        ("pbc", {"pbc": (True, False)}),
        ("tolerance", {"tolerance": 0.0}),
        ("tolerance", {"tolerance": 1e-20}),
    ],
)
def test_epstein_zeta(argument, keywords):
    arguments = {"displacement": POSITIONS, "cell": CELL} | keywords
    displacement, cell = arguments.pop("displacement"), arguments.pop("cell")
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        epstein_zeta(3, displacement, cell, **arguments)


@BOTH
def test_without_a_tolerance_a_dense_crystal_is_no_error_in_float32(call):
    cell = 0.25 * (1 - torch.eye(3, dtype=torch.float64))
    crystal = {"positions": POSITIONS[:1], "cell": cell, "sources": SOURCES[:1]}
    single = {name: value.float() for name, value in crystal.items()}
    with pytest.raises(ValueError, match="tolerance"):
        call(**single, tolerance=1e-5)
    exact = call(**crystal, tolerance=1e-10)
    torch.testing.assert_close(call(**single, tolerance=None).double(), exact, rtol=2e-6, atol=0)
