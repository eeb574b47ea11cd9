"""The compiled potential gives the numbers of the model, or says that it cannot be compiled."""

from __future__ import annotations

import pickle
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111

from ase_potnet import PotNetCalculator
from ase_potnet.models import build_model

OPTIONS = {"width": 8, "message_width": (4, 2, 2), "n_sources": 2}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("equivariant-potnet", OPTIONS).double()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_()
    return model


def results(calculator: PotNetCalculator, atoms: Atoms) -> dict[str, Any]:
    atoms = atoms.copy()
    atoms.calc = calculator
    atoms.get_forces()
    return calculator.results


def assert_equal(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_same_numbers_for_every_size(network: torch.nn.Module) -> None:
    compiled, plain = PotNetCalculator(network, compile=True), PotNetCalculator(network)
    salt = bulk("NaCl", "rocksalt", a=5.6).repeat((2, 1, 1))
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    for atoms in (salt, salt.repeat((1, 2, 1)), slab, Atoms("Fe", cell=[9, 9, 9], pbc=True)):
        atoms.rattle(0.05, seed=1)
        assert_equal(results(compiled, atoms), results(plain, atoms))
    again = pickle.loads(pickle.dumps(compiled))
    assert again.parameters["compile"]
    assert_equal(results(again, salt), results(plain, salt))


def test_goes_on_with_a_warning(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("no working C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    calculator = PotNetCalculator(network, compile=True)
    with pytest.raises(ValueError, match=r"elements of the training set"):
        results(calculator, Atoms("Og", cell=[9, 9, 9], pbc=True))
    with pytest.warns(UserWarning, match=r"compile: goes on without.*no working C\+\+ compiler"):
        found = results(calculator, salt)
    assert_equal(found, results(PotNetCalculator(network), salt))
    results(calculator, salt.repeat((2, 1, 1)))  # without another warning
