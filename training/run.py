"""One training from recipe to model folder; run again, it continues."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import math
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import nn

from ase_potnet.file_safety import exclusive_lock
from ase_potnet.models import build_model, model_name, option_names
from ase_potnet.models.equivariant_potnet import EquivariantPotNet
from ase_potnet.models.known_elements import KnowsElements
from ase_potnet.pretrained import load_model, model_info, save_model
from ase_potnet.pretrained.format import check_model_folder

from .checkpoint import LAST, read_checkpoint
from .evaluation import known_elements, known_structures, predict_arrays
from .growth import can_grow, grow
from .metrics import Metrics
from .module import Training
from .recipe import ModelConfig, Recipe, differences, load_recipe
from .replay import with_replay
from .reporting import Report, write_log, write_results
from .sources import TrainingData, load_training_data
from .tasks import PropertyTask, Task, dtype_of, make_task, shift_references

MODEL_FOLDER = "model"
LOCK = "lock"


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind.

    folder: of the run
    finished: whether it is over; otherwise run it again to go on
    reason: why it ended, or stopped
    model: folder of the exported model, None before the first validation
    metrics: errors of the exported model by part, "val" and "test"
    """

    folder: Path
    finished: bool
    reason: str
    model: Path | None
    metrics: dict[str, Metrics]


def train(
    recipe: Recipe | str | Path | dict[str, Any],
    *,
    restart: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train a model as a recipe says, or go on with a training that was interrupted.

    The folder `recipe.output` gets: last.pt, log.csv, recipe.json, and whenever it stops model/ (averaged weights of
    the best epoch), metrics.json, predictions, learning_curve.png and parity pictures. Ctrl-C and SIGTERM leave model/
    alone of these, and exit with 130 and 143.

    Args:
        recipe: or its file, the name of a packaged one, or a mapping.
        restart: start over, without the checkpoint that is there.
        progress: report on stderr.

    Raises:
        ValueError: naming what is wrong with recipe or data; a checkpoint of another recipe.
    """
    start = time.monotonic()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    folder = Path(recipe.output).expanduser()
    check_model_folder(folder / MODEL_FOLDER)
    if not _is_first_process():
        return _train(recipe, folder, start, restart, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / LOCK, "output"):
        return _train(recipe, folder, start, restart, progress)


def _train(recipe: Recipe, folder: Path, start: float, restart: bool, progress: bool) -> TrainingResult:
    checkpoint = None if restart else read_checkpoint(folder)
    if checkpoint is not None:
        _same_recipe(recipe, json.loads(checkpoint["recipe"]), folder)
    report = Report(progress)
    data = load_training_data(recipe, progress=progress)
    with _random_numbers(recipe.seed), _quiet_lightning():
        task = make_task(recipe)
        model = make_model(recipe, task, data)
        data = _of_known_elements(data, model)
        fingerprint = data.fingerprint()
        if recipe.model.shift_references:
            data = _with_shifted_energies(data)
        if recipe.data.replay is not None:
            assert recipe.model.start_from is not None
            elements = known_elements(load_model(recipe.model.start_from))  # without those that are new
            data = with_replay(data, recipe.data.replay, model, elements, dtype_of(recipe), recipe.seed)
        report.data(data)
        deadline = math.inf if recipe.max_seconds is None else start + recipe.max_seconds
        training = Training(model, task, recipe, data, folder, deadline)
        training.fingerprint = fingerprint
        if checkpoint is not None:
            _same_data(fingerprint, checkpoint, folder)
            training.resume(checkpoint)
            report.resumed(training.progress)
        training.on_epoch = report.epoch
        report.model(model)
        with _interruptions(training, report):
            is_first = _fit(training, recipe, report, restart)
    if not is_first:
        return TrainingResult(folder, False, "another process reports", None, {})
    return _finish(training, report)


def _of_known_elements(data: TrainingData, model: nn.Module) -> TrainingData:
    """Without the structures for validation and test whose elements the network does not learn."""
    val, unknown = known_structures(data.val, model)
    if val is None:
        raise ValueError(f"data: every structure for validation has elements that are new there: {', '.join(unknown)}")
    test, more = (None, ()) if data.test is None else known_structures(data.test, model)
    lost = sum(map(len, filter(None, (data.val, data.test)))) - len(val) - (len(test) if test else 0)
    if not lost:
        return data
    symbols = ", ".join(sorted({*unknown, *more}))
    note = f"{lost:,} structures for validation or test left out: elements that the training part lacks ({symbols})"
    return replace(data, val=val, test=test, notes=(*data.notes, note))


def make_model(recipe: Recipe, task: Task, data: TrainingData) -> nn.Module:
    """The network of a recipe, scaled to the training part."""
    config = recipe.model
    name, options = _architecture(config)
    if task.name == "property":
        options["n_targets"] = len(task.targets)
    model = build_model(name, options)
    if recipe.precision != "full" and isinstance(model, EquivariantPotNet):
        raise ValueError(f"precision: the lattice sums of {name} need 'full', got {recipe.precision!r}")
    model.to(dtype_of(recipe))
    taken, new = set[str](), set[int]()
    if config.start_from is not None:
        taken = _take_over(model, load_model(config.start_from))
        new = _new_elements(model, data)
    _require_known_elements(model, data)
    scale = "scaling.mean" if task.name == "property" else "references"
    fresh = scale not in taken or not _same_targets(config, task)  # else the scale of the weights taken over stays
    if fresh:
        task.fit_scaling(model, data.train)
    if isinstance(task, PropertyTask):
        task.set_limits(model)
    if config.shift_references or (new and task.name == "energy"):
        shift_references(model, data.train, dtype_of(recipe), None if config.shift_references else new)
    if data.free_atoms is not None and (fresh or new or config.shift_references):
        free = data.free_atoms.copy()
        if not (fresh or config.shift_references):
            free[[z for z in range(len(free)) if z not in new]] = np.nan
        network: Any = model
        network.set_free_atoms(torch.from_numpy(free[: len(network.references)]))
    for pattern in config.freeze:
        frozen = [p for name, p in model.named_parameters() if fnmatch.fnmatch(name, pattern)]
        if not frozen:
            raise ValueError(f"model.freeze: no parameter is named like {pattern!r}")
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model.freeze: nothing is left to train")
    return model


def _architecture(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Name and options of the network: those of the recipe, and where it has none, those of start_from."""
    if config.start_from is None:
        assert config.name is not None
        return config.name, dict(config.options)
    info = model_info(config.start_from)
    if info.model == "mean-of-models":
        raise ValueError(
            f"model.start_from: {config.start_from} is the mean of several networks, which cannot be trained on; "
            "start from one network, such as default (with name: equivariant-properties for properties)"
        )
    name = config.name or info.model
    known = option_names(name)
    return name, {key: value for key, value in info.config.items() if key in known} | config.options


def _same_targets(config: ModelConfig, task: Task) -> bool:
    """Whether the weights to start from predict what is to be learned."""
    assert config.start_from is not None
    before = model_info(config.start_from)
    if before.task != task.name:
        return False
    return not isinstance(task, PropertyTask) or [t.name for t in before.targets] == [t.name for t in task.targets]


def _take_over(model: nn.Module, source: nn.Module) -> set[str]:
    """Copy the weights whose name and shape agree; these names. A wider potential starts as the narrower one."""
    if type(model) is type(source) is EquivariantPotNet and can_grow(source.config, model.config):
        grow(source, model)
    own, other = model.state_dict(), source.state_dict()
    shared = {name: t.to(own[name]) for name, t in other.items() if name in own and own[name].shape == t.shape}
    if not shared:
        raise ValueError("model.start_from: none of its weights has the name and shape of one of this model")
    model.load_state_dict(shared, strict=False)
    return set(shared)


def _new_elements(model: nn.Module, data: TrainingData) -> set[int]:
    """Let a network that was trained before have the elements of the training part, too; those that are new to it."""
    if not isinstance(model, KnowsElements):
        return set()
    numbers = np.unique(data.train.numbers)
    new = [int(z) for z in numbers if z < len(model.elements) and not model.elements[z]]
    model.elements[new] = True
    return set(new)


def _require_known_elements(model: nn.Module, data: TrainingData) -> None:
    """Raises ValueError for elements of the training part that the network has no weights for."""
    if not isinstance(model, KnowsElements):
        return
    limit = len(model.elements)
    if len(beyond := np.unique(data.train.numbers[data.train.numbers >= limit])):
        which = np.flatnonzero(data.train.holds(beyond))
        raise ValueError(
            f"data: {model_name(model)} has elements up to {chemical_symbols[limit - 1]}; leave out the "
            f"{len(which):,} structures for training with {', '.join(chemical_symbols[z] for z in beyond)}, such as "
            f"{data.train.ids[which[0]]!r}"
        )


def _with_shifted_energies(data: TrainingData) -> TrainingData:
    """Without the energies for validation and test where the training part lacks an element: none was shifted."""
    shifted_by = data.train.take(np.flatnonzero(data.train.has("energy")))
    if not len(shifted_by):
        return data
    known = np.zeros(len(chemical_symbols), dtype=bool)
    known[shifted_by.numbers] = True
    parts: dict[str, Any] = {}
    n_lost, missing = 0, set[int]()
    for name, part in (("val", data.val), ("test", data.test)):
        if part is None:
            continue
        lost = part.holds(~known) & part.has("energy")
        energy = np.where(lost, np.nan, part.values["energy"])
        parts[name] = replace(part, values=part.values | {"energy": energy})
        n_lost += int(lost.sum())
        missing |= set(part.numbers[~known[part.numbers]].tolist())
    if not n_lost:
        return data
    note = (
        f"energies of {n_lost:,} structures for validation or test are not compared: the training part, by which the "
        f"references are shifted, lacks {', '.join(chemical_symbols[z] for z in sorted(missing))}"
    )
    return replace(data, **parts, notes=(*data.notes, note))


def _fit(training: Training, recipe: Recipe, report: Report, restart: bool) -> bool:
    """Run Lightning's trainer. Whether this is the first process."""
    if training.progress.stopped:
        return _is_first_process()
    from lightning import Trainer
    from lightning.pytorch.strategies import DDPStrategy

    devices, nodes = recipe.devices, recipe.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ and (devices, nodes) == (1, 1):  # as many as torchrun was told
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = devices not in (1, "auto") or nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    if recipe.devices == "auto" and recipe.accelerator != "cpu" and torch.cuda.device_count() > 1:
        several = True
    trainer = Trainer(
        accelerator=_accelerator(recipe),
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
        precision={"full": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[recipe.precision],  # type: ignore[arg-type]
        max_epochs=-1 if recipe.optimiser.seconds else recipe.epochs - training.progress.epoch,
        gradient_clip_val=recipe.clip,
        callbacks=[report.callback()],
        logger=_tensorboard(recipe, training.folder),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        default_root_dir=training.folder,
    )
    training.device_name = trainer.strategy.root_device.type
    if trainer.is_global_zero:
        (training.folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if restart:
            (training.folder / LAST).unlink(missing_ok=True)
    trainer.fit(training)
    return bool(trainer.is_global_zero)


def _is_first_process() -> bool:
    """Of those that torchrun, Lightning or Slurm started for one training."""
    return not any(int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _accelerator(recipe: Recipe) -> str:
    """Lightning's own "auto" would take Apple's GPUs, which have no float64."""
    if recipe.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.accelerator != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"accelerator: PyTorch sees no GPU for {recipe.accelerator!r}; use 'cpu' or 'auto'")
    return recipe.accelerator


def _tensorboard(recipe: Recipe, folder: Path) -> Any:
    if not recipe.tensorboard:
        return False
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ValueError("tensorboard: it is not installed; pip install tensorboard") from error


@contextlib.contextmanager
def _interruptions(training: Training, report: Report) -> Iterator[None]:
    """Ctrl-C and SIGTERM inside end the program with their exit status; the best weights so far are exported."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:  # Lightning makes one of Ctrl-C, too
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        saved = (training.folder / LAST).is_file()
        goes_on = "run it again to go on" if saved else "there is no checkpoint yet"
        text = f"Interrupted in epoch {training.progress.epoch}; {goes_on}."
        if training.best and training.global_rank == 0:
            text += f" Best model so far: {_export(training, {})}"
        report.end(text)
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        raise SystemExit(128 + number) from None


def _finish(training: Training, report: Report) -> TrainingResult:
    """Export the best weights, measure them, draw the pictures."""
    progress, recipe, task, folder = training.progress, training.recipe, training.task, training.folder
    reason = progress.stopped or "the time limit max_seconds is reached; run it again to go on"
    write_log(folder, progress.history)
    if not training.best:
        report.end(f"Stopped before the first validation: {reason}.")
        return TrainingResult(folder, False, reason, None, {})
    model = _best_model(training)
    dtype = dtype_of(recipe)
    parts = {"val": training.data.val} | ({"test": training.data.test} if training.data.test is not None else {})
    predictions = {name: predict_arrays(task.predict, model, part, dtype=dtype) for name, part in parts.items()}
    metrics = {name: task.metrics(predictions[name], part) for name, part in parts.items()}
    exported = _export(training, metrics)
    write_results(folder, task, parts, predictions, metrics, progress, model_info(exported).metadata)
    report.end(f"{reason[:1].upper()}{reason[1:]}. Model and results: {folder}")
    return TrainingResult(folder, progress.stopped is not None, reason, exported, metrics)


def _best_model(training: Training) -> nn.Module:
    model = training.model.cpu()
    model.load_state_dict(training.best)
    return model.eval()


def _export(training: Training, metrics: dict[str, Metrics]) -> Path:
    """The model folder of the best weights."""
    progress, recipe, task, model = training.progress, training.recipe, training.task, _best_model(training)
    metadata = {
        "data": recipe.data.model_dump(mode="json"),
        "n_train": len(training.data.train),
        "n_val": len(training.data.val),
        "metrics": metrics,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "steps": progress.step,
        "training_seconds": round(progress.seconds),
        "finished": progress.stopped is not None,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {training.device_name}",
        "recipe": recipe.model_dump(mode="json"),
    }
    folder = training.folder / MODEL_FOLDER
    return save_model(model, folder, targets=task.targets, task=task.name, metadata=metadata)


def _same_data(fingerprint: str, checkpoint: dict[str, Any], folder: Path) -> None:
    if checkpoint.get("data", fingerprint) != fingerprint:
        raise ValueError(
            f"data: changed since the training in {folder} began; use --restart to start over, or another output"
        )


def _same_recipe(recipe: Recipe, earlier: dict[str, Any], folder: Path) -> None:
    different = differences(recipe, earlier)
    if different:
        raise ValueError(
            f"output: {folder} holds a training whose recipe differs in {', '.join(different)}; "
            "use --restart to start over, or another output"
        )


@contextlib.contextmanager
def _random_numbers(seed: int) -> Iterator[None]:
    """Random numbers of the seed inside, the caller's again afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's notes on devices, tips, and what it uses that is deprecated."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
