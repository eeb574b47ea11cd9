"""Recipes and runs that the tests of training share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import tiny_models

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "data"
SCRIPT = Path(__file__).with_name("train_tiny.py")
Recipe = dict[str, Any]


@pytest.fixture(autouse=True, scope="session")
def _tiny_models() -> None:
    tiny_models.register()


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pictures take most of the time of a tiny training: only tests marked with `pictures` draw them."""
    if "pictures" not in request.fixturenames:
        for name in ("learning_curve", "parity_picture"):
            monkeypatch.setattr(f"ase_potnet.training.reporting.{name}", lambda *args: None)


@pytest.fixture
def pictures() -> None:
    """This test draws pictures."""


@pytest.fixture
def property_recipe(tmp_path: Path) -> Recipe:
    """12 crystals of JARVIS, two targets."""
    return {
        "output": str(tmp_path / "run"),
        "data": {
            "path": str(SAMPLES / "jarvis_sample.json"),
            "targets": [
                {"name": "formation_energy_per_atom", "field": "formation_energy_peratom", "unit": "eV/atom"},
                "optb88vdw_bandgap",
            ],
            "split": {"fractions": [0.7, 0.2, 0.1]},
        },
        "model": {"name": tiny_models.PROPERTY},
        "batch": {"structures": 3},
        "optimiser": {"lr": 0.02},
        "ema": 0.9,
        "epochs": 4,
        "seed": 5,
    }


@pytest.fixture
def energy_recipe(tmp_path: Path) -> Recipe:
    """12 frames with DFT energies, forces and stress."""
    return {
        "output": str(tmp_path / "run"),
        "task": "energy",
        "data": {"path": str(SAMPLES / "dft_forces_sample.extxyz"), "split": {"fractions": [0.7, 0.2, 0.1]}},
        "model": {"name": tiny_models.ENERGY},
        "batch": {"atoms": 20},
        "optimiser": {"lr": 0.02},
        "ema": 0.9,
        "epochs": 3,
        "dtype": "float64",
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe with changes to a file."""

    def writer(recipe: Recipe, name: str = "recipe", **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe | changes), encoding="utf-8")
        return path

    return writer


def start_training(recipe: Path, *, delay: float = 0.0, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"STEP_DELAY": str(delay), "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed, after it has ended well."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out
