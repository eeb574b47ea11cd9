"""The compiled potential gives the numbers of the model, or says that it cannot be compiled."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111

from ase_potnet import PotNetCalculator
from ase_potnet.graph import batch_structures, local_edges
from ase_potnet.models import compiled
from ase_potnet.models.compiled import CompiledStep
from ase_potnet.models.derivatives import differentiate
from ase_potnet.models.equivariant_potnet import EquivariantPotNet
from ase_potnet.models.local_environment import padded_places

from .crystals import CRYSTALS, rewritten

OPTIONS = {"width": 8, "message_width": (4, 2, 2), "n_sources": 2}


@pytest.fixture(scope="module")
def make_network(random_network: Callable[..., Any]) -> Callable[..., EquivariantPotNet]:
    def make(**options: object) -> EquivariantPotNet:
        return random_network("equivariant-potnet", **OPTIONS, **options).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="module")
def network(make_network: Callable[..., EquivariantPotNet]) -> EquivariantPotNet:
    return make_network()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ase_potnet" / "compiled"


def results(calculator: PotNetCalculator, atoms: Atoms) -> dict[str, Any]:
    atoms = atoms.copy()
    atoms.calc = calculator
    atoms.get_forces()
    return calculator.results


def assert_equal(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-9, err_msg=name)


def crystals() -> dict[str, Atoms]:
    some = rewritten(CRYSTALS["perovskite"]) | {"salt": CRYSTALS["rocksalt"].copy()}
    some["salt"].rattle(0.05, seed=1)
    some["close"] = Atoms("HF", [[0, 0, 0], [0.1, 0.2, 0.7]], cell=[3, 4, 5], pbc=True)  # nuclei repel
    return some


@pytest.mark.parametrize(("alpha", "complete"), [(3.0, (False, False, True)), (0.4, (False, False, False))])
def test_the_function_to_be_compiled(
    alpha: float,
    complete: tuple[bool, ...],
    make_network: Callable[..., EquivariantPotNet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_network(alpha=alpha)
    asked = []

    def uncompiled(model: EquivariantPotNet, flags: tuple[bool, ...], dtype: torch.dtype) -> Any:
        asked.append(flags)
        step = compiled._step(model, flags)
        return lambda inputs: step(*inputs)

    monkeypatch.setattr(compiled, "_load_or_compile", uncompiled)
    function = CompiledStep(model)
    for name, atoms in crystals().items():
        batch = batch_structures(atoms)
        places = padded_places(local_edges(batch, model.cutoffs.wider(0.3)), batch, model.cutoffs)
        found = function(batch, places)
        wanted = differentiate(model, batch)
        assert found is not None
        for part, value in vars(wanted).items():
            torch.testing.assert_close(getattr(found, part), value, rtol=1e-9, atol=1e-9, msg=f"{name}: {part}")
    assert asked == [complete]


def test_other_systems_are_left_to_the_model(network: EquivariantPotNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_load_or_compile", lambda *_: pytest.fail("nothing to compile"))
    calculator, plain = PotNetCalculator(network, compile=True), PotNetCalculator(network)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    for atoms in (fcc111("Al", (1, 1, 3), vacuum=6.0), Atoms("Fe", cell=[9, 9, 9], pbc=True), salt.repeat((3, 4, 3))):
        assert_equal(results(calculator, atoms), results(plain, atoms))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_same_numbers_for_every_size(network: EquivariantPotNet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, plain = PotNetCalculator(network, compile=True), PotNetCalculator(network)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.rattle(0.05, seed=1)
    assert_equal(results(fast, salt), results(plain, salt))
    (package,) = cache.glob("*.pt2")
    assert [path.name for path in cache.iterdir()] == [package.name]

    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("compiled again"))
    again = pickle.loads(pickle.dumps(fast))
    assert again.parameters["compile"]
    for atoms in (*crystals().values(), salt.repeat((3, 2, 2)), bulk("Cu").repeat((4, 4, 4))):
        assert_equal(results(again, atoms), results(plain, atoms))


def test_goes_on_with_a_warning(network: EquivariantPotNet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compiled, "_compile", fail)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    calculator = PotNetCalculator(network, compile=True)
    with pytest.raises(ValueError, match=r"elements of the training set"):
        results(calculator, Atoms("Og2", [[0, 0, 0], [0, 0, 3]], cell=[9, 9, 9], pbc=True))
    with pytest.warns(UserWarning, match=r"compile: goes on without.*no working C\+\+ compiler"):
        found = results(calculator, salt)
    assert not list(cache.iterdir())
    assert_equal(found, results(PotNetCalculator(network), salt))
    results(calculator, salt.repeat((2, 1, 1)))  # without another warning


def test_the_name_in_the_cache_follows_the_weights(
    network: EquivariantPotNet, make_network: Callable[..., EquivariantPotNet]
) -> None:
    def name(model: EquivariantPotNet, flags: tuple[bool, ...] = (False, False, True)) -> str:
        return compiled._key(model, flags, torch.float64)

    assert name(network) == name(make_network()) != name(network, (False, False, False))
    other = make_network()
    other.embedding.weight[3, 0] += 1e-9
    assert name(other) != name(network)
