"""The Lightning module: steps, averaged weights, validation, and the state from which a training continues."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import lightning
import torch
import torch.distributed
from torch import Tensor, nn

from ase_potnet.evaluation import neighbour_cutoff

from .averaging import WeightAverage
from .batches import TrainingBatches
from .checkpoint import LAST, write_checkpoint
from .evaluation import merge_predictions, predict_arrays
from .losses import combine
from .metrics import Metrics
from .recipe import Recipe
from .schedules import rate_factor
from .sources import TrainingData
from .tasks import LabelledBatch, Task, dtype_of

_LONG_VALIDATION = 10.0  # s; before a longer one, a checkpoint is written


@dataclass
class Progress:
    """How far a training is.

    epoch, batch: number of the epoch (from 0) and of the batches done in it
    step: optimiser steps
    seconds: of training, all invocations together, by the clock of the recipe
    best_score, best_epoch: of the validation
    history: a row an epoch, as in log.csv
    stopped: why it ended; None while it goes on
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_score: float = math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: str | None = None

    def epochs_without_gain(self, least: float) -> int:
        """Epochs since the score was last better than the best so far by more than the least that counts."""
        reference, epochs = math.inf, 0
        for row in self.history:
            gained = row["score"] < reference - least
            reference, epochs = (row["score"], 0) if gained else (reference, epochs + 1)
        return epochs


class Training(lightning.LightningModule):
    """A model being trained.

    Everything that a continued training needs is in `state()`; Lightning's own checkpoints are not used, because its
    loops do not promise to resume within an epoch. An epoch of Lightning is the rest of an epoch here.

    Args:
        model: the network, scaled to the data already
        task, recipe, data: of the training
        folder: of the run, for checkpoints
        deadline: value of time.monotonic() at which to stop
    """

    def __init__(
        self, model: nn.Module, task: Task, recipe: Recipe, data: TrainingData, folder: Path, deadline: float = math.inf
    ) -> None:
        super().__init__()
        self.model, self.task, self.recipe, self.data = model, task, recipe, data
        self.folder, self.deadline = folder, deadline
        self.device_name = "cpu"
        self.progress = Progress()
        self.average = WeightAverage(model, recipe.ema)
        self.best: dict[str, Tensor] = {}
        self.sums: Tensor | None = None  # (2, terms) totals and counts of the losses of this epoch
        self.last_loss: Tensor | None = None
        self._term_names: list[str] = []
        self._resumed: dict[str, Any] | None = None
        self.fingerprint = ""  # of the data
        self._batches: TrainingBatches | None = None
        self._now = time.process_time if recipe.optimiser.clock == "cpu" else time.monotonic
        self._clock, self._saved = self._now(), time.monotonic()
        self._validation_seconds = 0.0
        self._stop_asked = False
        self.on_epoch: Callable[[Training], None] = lambda training: None  # called after every validation

    # state -----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a continued training needs. Random numbers depend on seed, step and rank alone."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer | lightning.pytorch.core.optimizer.LightningOptimizer)
        return {
            "recipe": self.recipe.model_dump_json(),
            "data": self.fingerprint,
            "progress": json.dumps(asdict(self.progress)),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": optimizer.state_dict(),
            "precision": self.trainer.precision_plugin.state_dict(),
            "sums": self.sums,
            "terms": self._term_names,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Take over a state; the optimiser's when there is one."""
        self.progress = Progress(**json.loads(state["progress"]))
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.sums, self._term_names = state["sums"], state["terms"]
        self._resumed = state

    def save(self) -> None:
        """Write a checkpoint, from the first process."""
        self._tick()
        if self.sums is not None and not torch.isfinite(self.sums).all():
            self._give_up("the loss is")
        if self.trainer.is_global_zero:
            write_checkpoint(self.folder, self.state())
        self._saved = time.monotonic()

    def _give_up(self, what: str) -> NoReturn:
        raise ValueError(
            f"{what} not finite in epoch {self.progress.epoch}: lower optimiser.lr, or clip harder "
            f"(the last checkpoint, {self.folder / LAST}, is from before)"
        )

    def _tick(self) -> None:
        """Count the time."""
        now = self._now()
        self.progress.seconds += now - self._clock
        self._clock = now

    # set-up ----------------------------------------------------------------------------------------------------------

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the weights alone: forces also depend on positions, whose second derivatives nobody needs."""
        loss.backward(inputs=[parameter for parameter in self.parameters() if parameter.requires_grad])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weights of matrices decay, biases and scales do not."""
        config = self.recipe.optimiser
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas)

    def train_dataloader(self) -> TrainingBatches:
        """The batches of this process."""
        self._batches = TrainingBatches(
            self.data.train,
            self.task.collate,
            self.recipe.batch.budget(neighbour_cutoff(self.model, default=5.0)),
            self.progress,
            seed=self.recipe.seed,
            rank=self.global_rank,
            world=self.trainer.world_size,
            paired=self.recipe.loss.differences is not None,
        )
        return self._batches

    def transfer_batch_to_device(self, batch: LabelledBatch, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on the device."""
        return batch.to(device)

    def on_train_start(self) -> None:
        """Put the rest of a checkpoint where it belongs."""
        self.average.to(self.device)
        self.sums = None if self.sums is None else self.sums.to(self.device)
        if self._resumed is not None:
            self.trainer.optimizers[0].load_state_dict(self._resumed["optimiser"])
            self.trainer.precision_plugin.load_state_dict(self._resumed["precision"])
            self._resumed = None
        self.model.train()
        self._clock, self._saved = self._now(), time.monotonic()

    # steps -----------------------------------------------------------------------------------------------------------

    @property
    def n_batches(self) -> int:
        """Batches of the current epoch."""
        assert self._batches is not None
        return len(self._batches.plan())

    @property
    def fraction(self) -> float:
        """Of the training that is done, 0 to 1."""
        progress, seconds = self.progress, self.recipe.optimiser.seconds
        if seconds is not None:
            return min(progress.seconds / seconds, 1.0)
        return (progress.epoch + progress.batch / max(self.n_batches, 1)) / self.recipe.epochs

    def on_train_batch_start(self, batch: LabelledBatch, batch_idx: int) -> int | None:
        """Learning rate and random numbers of the step; -1 ends the epoch, where the time was over before a kill."""
        config = self.recipe.optimiser
        if config.seconds is not None and self.trainer.world_size > 1:
            self.progress.seconds = self.trainer.strategy.broadcast(self.progress.seconds)  # one rate for all
        if config.seconds is not None and self.progress.seconds >= config.seconds:
            self.trainer.should_stop = True
            return -1
        rate = config.lr * rate_factor(config.schedule, self.fraction, warmup=config.warmup, final=config.final)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        seed = (self.recipe.seed * 1_000_003 + self.progress.step) * 1009 + self.global_rank
        torch.default_generator.manual_seed(seed)  # torch.manual_seed costs 0.4 ms where CUDA is not in use
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return None

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The loss of a batch, over all processes."""
        try:
            terms = self.task.loss_terms(self.model, batch, self.fraction)
        except ValueError as error:
            if self.progress.step > 0 and "must be finite" in str(error):  # the structures are: they were checked
                self._give_up("what the network computes is")
            raise
        totals = torch.stack([term.total.detach().double() for term in terms])
        counts = torch.stack([term.count.double() for term in terms])
        world = self.trainer.world_size
        stop = time.monotonic() >= self.deadline
        if world > 1:
            joint = torch.cat([totals, counts, totals.new_tensor([float(stop and self.global_rank == 0)])])
            torch.distributed.all_reduce(joint)
            totals, counts = joint[: len(terms)], joint[len(terms) : -1]
            stop = bool(joint[-1] > 0)
        self._stop_asked = stop
        new = torch.stack([totals, counts])
        self.sums = new if self.sums is None else self.sums + new
        self._term_names = [term.name for term in terms]
        loss = combine(terms, [count.to(terms[0].total) for count in counts], world)
        self.last_loss = loss.detach()
        return loss

    def on_train_batch_end(self, outputs: Any, batch: LabelledBatch, batch_idx: int) -> None:
        """Average the weights, count, write a checkpoint if it is time, stop if it is."""
        self.average.update(self.model)
        self.progress.batch += 1
        self.progress.step += 1
        self._tick()
        if self._time_is_over() or self._stop_asked:
            self.trainer.should_stop = True
        due = time.monotonic() - self._saved >= self.recipe.checkpoint_seconds
        if due or self._stop_asked or self.trainer.received_sigterm:
            self.save()

    def _time_is_over(self) -> bool:
        """Whether the seconds of the schedule are."""
        total = self.recipe.optimiser.seconds
        return total is not None and self._agreed(self.progress.seconds >= total)

    def _agreed(self, flag: bool) -> bool:
        """What the first process says."""
        if self.trainer.world_size == 1:
            return flag
        return bool(self.trainer.strategy.broadcast(flag))

    # epochs ----------------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        """Validate; keep the best averaged weights; stop early or go on to the next epoch."""
        progress, recipe = self.progress, self.recipe
        if progress.batch < self.n_batches and not self._time_is_over():
            return  # stopped in the middle, to be continued
        if self._validation_seconds > _LONG_VALIDATION:
            self.save()
        start = time.monotonic()
        metrics = self.validate()
        self._validation_seconds = time.monotonic() - start
        score = self.task.score(self.model, metrics)
        if score < progress.best_score or not self.best:
            progress.best_score, progress.best_epoch = score, progress.epoch
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.average.state.items()}
        self._tick()
        progress.history.append(self._row(score, metrics))
        if self.trainer.is_global_zero:
            self.on_epoch(self)
        self.sums = None
        progress.epoch, progress.batch = progress.epoch + 1, 0
        stopping = recipe.early_stopping
        if stopping and progress.epochs_without_gain(stopping.min_delta) >= stopping.patience:
            progress.stopped = f"no better for {stopping.patience} epochs"
        elif self._time_is_over():
            progress.stopped = f"the {recipe.optimiser.seconds:g} s of the schedule are over"
        elif recipe.optimiser.seconds is None and progress.epoch >= recipe.epochs:
            progress.stopped = f"{recipe.epochs} epochs are done"
        if progress.stopped:
            self.trainer.should_stop = True
        self.save()

    def validate(self) -> Metrics:
        """Errors of the averaged weights on the validation part; every process takes its share."""
        if self.trainer.world_size > 1:
            for tensor in self.average.state.values():  # running statistics differ between processes
                torch.distributed.broadcast(tensor, 0)
        with self.average.applied_to(self.model):
            predictions = predict_arrays(
                self.task.predict,
                self.model,
                self.data.val,
                dtype=dtype_of(self.recipe),
                device=self.device,
                rank=self.global_rank,
                world=self.trainer.world_size,
            )
        if self.trainer.world_size > 1:
            parts: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, predictions)
            predictions = merge_predictions(parts)
        metrics = self.task.metrics(predictions, self.data.val)
        if any("not_finite" in measures for measures in metrics.values()):
            self._give_up("predictions are")
        return metrics

    def _row(self, score: float, metrics: Metrics) -> dict[str, float]:
        """The row of log.csv: number of the epoch from 0, epochs done, ..."""
        row: dict[str, float] = {
            "epoch": self.progress.epoch,
            "epochs": round(self.progress.epoch + self.progress.batch / self.n_batches, 4),
            "step": self.progress.step,
            "seconds": round(self.progress.seconds, 3),
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            "score": score,
        }
        if self.sums is not None:
            means = (self.sums[0] / self.sums[1].clamp(min=1)).tolist()
            row |= {f"train_{name}": mean for name, mean in zip(self._term_names, means, strict=True)}
        for quantity, measures in metrics.items():
            row |= {f"val_{quantity}_{name}": measures[name] for name in ("mae", "rmse") if name in measures}
        return row
