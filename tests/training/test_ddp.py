from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ase_potnet.training.checkpoint import read_checkpoint
from ase_potnet.training.module import Training
from ase_potnet.training.run import train

from .gradients import Recorder

SCRIPT = Path(__file__).with_name("gradients.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize("task", ["property", pytest.param("energy", marks=pytest.mark.slow)])
def test_two_processes_have_the_gradients_of_one(
    task: str,
    property_recipe: dict[str, Any],
    energy_recipe: dict[str, Any],
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = property_recipe if task == "property" else energy_recipe
    recipe |= {"epochs": 2, "dtype": "float64", "accelerator": "cpu", "batch": {"structures": 5}}
    if task == "property":
        recipe["model"] = recipe["model"] | {"options": {"dropout": 0.0}}
    file = write(recipe, output=str(tmp_path / "run_two"))
    result = subprocess.run(
        [sys.executable, *TORCHRUN, str(SCRIPT), str(file), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    recorder = Recorder()
    for name, hook in recorder.hooks().items():
        monkeypatch.setattr(Training, name, hook)
    train(recipe | {"output": str(tmp_path / "run_one")}, progress=False)
    alone = recorder.gradients
    shared = [torch.load(tmp_path / f"two.{rank}") for rank in range(2)]
    assert alone.pop("rows") == 5
    assert sorted(int(part.pop("rows")) for part in shared) == [2, 3]
    assert max(float(tensor.abs().max()) for tensor in alone.values()) > 1e-3
    for part in shared:
        assert part.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(part[name], gradient, rtol=1e-9, atol=1e-11)
    # and the trainings end with the same weights and the same validation
    states = [read_checkpoint(tmp_path / f"run_{name}") for name in ("one", "two")]
    assert states[0] is not None
    assert states[1] is not None
    for name, tensor in states[0]["model"].items():
        torch.testing.assert_close(states[1]["model"][name], tensor, rtol=1e-7, atol=1e-9)
    logs = [(tmp_path / f"run_{name}" / "log.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 3
    for ours, theirs in zip(logs[0][-1].split(",")[4:], logs[1][-1].split(",")[4:], strict=True):
        assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
