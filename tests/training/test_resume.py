from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ase_potnet.pretrained import model_info
from ase_potnet.training.checkpoint import LAST, read_checkpoint
from ase_potnet.training.module import Training
from ase_potnet.training.run import train

from .conftest import finish, start_training

Write = Callable[..., Path]


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model" / "weights.safetensors")


def assert_same_run(one: str | Path, other: str | Path) -> None:
    """Same exported weights, same last weights, same log but for the times; to the last bit."""
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    first_state, second_state = (read_checkpoint(Path(folder)) for folder in (one, other))
    assert first_state is not None
    assert second_state is not None
    assert all(torch.equal(t, second_state["model"][name]) for name, t in first_state["model"].items())
    rows = [json.loads(state["progress"])["history"] for state in (first_state, second_state)]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1]


def test_killed_training_goes_on_to_the_same_weights(property_recipe: dict[str, Any], write: Write) -> None:
    output = Path(property_recipe["output"])
    whole = property_recipe | {"output": str(output) + "_whole"}
    train(whole, progress=False)
    recipe = write(property_recipe, checkpoint_seconds=0.3)
    process = start_training(recipe, delay=0.15)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        state = read_checkpoint(output)
        if state is not None and json.loads(state["progress"])["batch"] > 0:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    state = read_checkpoint(output)
    assert state is not None
    progress = json.loads(state["progress"])
    assert 0 < progress["batch"] < 3  # in the middle of an epoch
    assert not (output / "model").exists()
    assert finish(start_training(recipe)).startswith("finished")
    assert_same_run(whole["output"], output)


def test_time_limit_stops_and_running_again_goes_on(property_recipe: dict[str, Any], write: Write) -> None:
    output = Path(property_recipe["output"])
    whole = train(property_recipe | {"output": str(output) + "_whole"}, progress=False)
    assert whole.finished
    first = train(property_recipe | {"max_seconds": 1e-3}, progress=False)
    assert not first.finished
    assert "max_seconds" in first.reason
    assert first.model is None
    state = read_checkpoint(output)
    assert state is not None
    assert json.loads(state["progress"])["batch"] == 1
    rounds = 0
    while not (result := train(property_recipe | {"max_seconds": 1e-3}, progress=False)).finished:
        rounds += 1
        assert rounds < 30
    assert rounds > 5  # a step a round
    assert result.model == output / "model"
    assert_same_run(whole.folder, output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_the_best_model_and_says_so(
    property_recipe: dict[str, Any], write: Write, number: signal.Signals
) -> None:
    output = Path(property_recipe["output"])
    process = start_training(write(property_recipe, epochs=500, checkpoint_seconds=0.0), delay=0.05)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not (output / "log.csv").exists():
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    info = model_info(output / "model")
    assert not info.metadata["finished"]
    state = read_checkpoint(output)
    assert state is not None
    assert all(torch.equal(weights(output)[name], t.contiguous()) for name, t in state["best"].items())


def test_changed_data_are_no_continuation(property_recipe: dict[str, Any], tmp_path: Path) -> None:
    source = Path(property_recipe["data"]["path"])
    path = tmp_path / "crystals.json"
    path.write_bytes(source.read_bytes())
    property_recipe["data"]["path"] = str(path)
    train(property_recipe | {"max_seconds": 1e-3}, progress=False)
    entries = json.loads(path.read_text())
    entries[0]["formation_energy_peratom"] += 0.5
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="data: changed since the training in"):
        train(property_recipe, progress=False)
    assert train(property_recipe, progress=False, restart=True).finished


def test_a_folder_where_no_model_can_be_written_is_found_at_the_start(property_recipe: dict[str, Any]) -> None:
    folder = Path(property_recipe["output"]) / "model"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds more than a model \(notes\.txt"):
        train(property_recipe, progress=False)
    assert not (folder.parent / LAST).exists()
    (folder / "notes.txt").rename(folder / ".DS_Store")  # what file managers leave behind is no reason
    assert train(property_recipe, progress=False).finished
    assert (folder / ".DS_Store").read_text() == "mine"
    assert model_info(folder).model


def test_a_finished_training_is_not_repeated(property_recipe: dict[str, Any]) -> None:
    first = train(property_recipe, progress=False)
    before = weights(first.folder)
    again = train(property_recipe, progress=False)
    assert again.finished
    assert again.metrics == first.metrics
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(again.folder).items())


def test_restart_starts_over(property_recipe: dict[str, Any]) -> None:
    first = train(property_recipe, progress=False)
    changed = property_recipe | {"seed": 6}
    with pytest.raises(ValueError, match=r"recipe differs in seed; use --restart"):
        train(changed, progress=False)
    second = train(changed, restart=True, progress=False)
    assert second.finished
    assert second.metrics != first.metrics


def test_damaged_checkpoint_is_named(property_recipe: dict[str, Any]) -> None:
    folder = train(property_recipe | {"epochs": 1}, progress=False).folder
    content = (folder / LAST).read_bytes()
    (folder / LAST).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"last\.pt is damaged; train with --restart"):
        train(property_recipe | {"epochs": 1}, progress=False)


def test_the_caller_keeps_his_random_numbers(property_recipe: dict[str, Any]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train(property_recipe | {"epochs": 1}, progress=False)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_schedule_by_time_ends_with_a_validated_model(property_recipe: dict[str, Any], clock: str) -> None:
    optimiser = property_recipe["optimiser"] | {"seconds": 0.5, "clock": clock}
    result = train(property_recipe | {"optimiser": optimiser, "epochs": 1}, progress=False)
    assert result.finished
    assert "0.5 s" in result.reason
    assert result.metrics["val"]["formation_energy_per_atom"]["count"] > 0


class Killed(BaseException):
    pass


def test_killed_in_the_last_validation_of_a_schedule_by_time(
    property_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimiser = property_recipe["optimiser"] | {"seconds": 0.5, "clock": "cpu"}
    recipe = property_recipe | {"optimiser": optimiser, "checkpoint_seconds": 0}
    validate = Training.validate

    def killed(self: Training) -> Any:
        if self._time_is_over():
            raise Killed
        return validate(self)

    def tick(self: Training) -> None:  # validation takes no time, else the end may come in an earlier one
        self.progress.seconds = 0.1 * self.progress.step

    monkeypatch.setattr(Training, "_tick", tick)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "validate", killed)
        with pytest.raises(Killed):
            train(recipe, progress=False)
    before = read_checkpoint(Path(recipe["output"]))
    result = train(recipe, progress=False)
    after = read_checkpoint(Path(recipe["output"]))
    assert before is not None
    assert after is not None
    assert result.finished
    assert "0.5 s" in result.reason
    assert all(torch.equal(t, after["model"][name]) for name, t in before["model"].items())
    (*_, row) = csv.DictReader((result.folder / "log.csv").read_text().splitlines())
    assert int(row["step"]) == json.loads(before["progress"])["step"]


def test_processor_time_leaves_out_waiting(property_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    step = Training.training_step

    def slow(self: Training, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.1)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", slow)
    seconds = {}
    for clock in ("wall", "cpu"):
        optimiser = property_recipe["optimiser"] | {"clock": clock}
        result = train(property_recipe | {"optimiser": optimiser, "epochs": 2}, restart=True, progress=False)
        rows = list(csv.DictReader((result.folder / "log.csv").read_text().splitlines()))
        seconds[clock] = float(rows[-1]["seconds"])
        n_steps = int(rows[-1]["step"])
    assert seconds["wall"] - seconds["cpu"] > 0.08 * n_steps
