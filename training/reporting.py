"""What a training tells: progress on stderr, the log, and the results at the end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ase_potnet.pretrained import Target

from .arrays import Floats, StructureArrays
from .metrics import Metrics
from .pictures import learning_curve, parity_picture

if TYPE_CHECKING:
    from .module import Progress, Training
    from .sources import TrainingData
    from .tasks import Task


class Report:
    """Progress on stderr: a bar in a terminal, a line an epoch anywhere; nothing where it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        from rich.console import Console

        # processes other than the first stay silent
        wanted = wanted and os.environ.get("LOCAL_RANK", "0") == "0"
        self.console = Console(stderr=True, quiet=not wanted, highlight=False, soft_wrap=True)
        self.bar_wanted = wanted and self.console.is_terminal

    def data(self, data: TrainingData) -> None:
        """Sizes of the parts."""
        parts = {"training": data.train, "validation": data.val, "test": data.test}
        sizes = ", ".join(f"{len(part):,} for {name}" for name, part in parts.items() if part is not None)
        atoms = data.train.n_atoms
        self.console.print(f"Structures: {sizes}; {atoms.min()} to {atoms.max()} atoms, {atoms.mean():.1f} on average")
        for note in data.notes:
            self.console.print(f"  {note}")

    def resumed(self, progress: Progress) -> None:
        """Where the training goes on."""
        self.console.print(f"Going on at epoch {progress.epoch}, batch {progress.batch}")

    def model(self, model: nn.Module) -> None:
        """Size of the network."""
        count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self.console.print(f"{type(model).__name__}, {count:,} parameters to train")

    def epoch(self, training: Training) -> None:
        """An epoch that has been validated: log.csv, a line, TensorBoard."""
        history = training.progress.history
        write_log(training.folder, history)
        self.console.print(describe(history[-1], training.progress))
        for logger in training.trainer.loggers:
            logger.log_metrics(history[-1], step=int(history[-1]["step"]))

    def end(self, text: str) -> None:
        """The last line."""
        self.console.print(text)

    def callback(self) -> Any:
        """Reports while Lightning trains."""
        from lightning.pytorch.callbacks import Callback
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        report = self
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

        class Reporter(Callback):
            bar = Bar(*columns, console=report.console, transient=True, disable=not report.bar_wanted)
            bar_task: Any = None

            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                self.bar.start()
                self.bar_task = self.bar.add_task("training")

            def on_train_batch_end(
                self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
            ) -> None:
                progress = pl_module.progress
                if report.bar_wanted and progress.step % 5 == 0 and pl_module.last_loss is not None:
                    text = f"epoch {progress.epoch}, loss {float(pl_module.last_loss):.4f}"
                    self.bar.update(
                        self.bar_task, description=text, completed=progress.batch, total=pl_module.n_batches
                    )

            def on_train_end(self, trainer: Any, pl_module: Any) -> None:
                self.bar.stop()

        return Reporter()


def describe(row: Mapping[str, float], progress: Progress) -> str:
    """A row of the log as one line."""
    words = [f"epoch {row['epoch']:4.0f}", f"{row['seconds']:8.0f} s", f"lr {row['lr']:.1e}"]
    words += [f"{name} {row[name]:.4g}" for name in row if name.startswith("train_")]
    words += [f"{name} {row[name]:.4g}" for name in row if name.startswith("val_") and name.endswith("_mae")][:4]
    return "  ".join(words) + ("  best" if progress.best_epoch == row["epoch"] else "")


def write_log(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """log.csv, a row an epoch."""
    if not history:
        return
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    (folder / "log.csv").write_text(text.getvalue(), encoding="utf-8")


def write_results(
    folder: Path,
    task: Task,
    parts: Mapping[str, StructureArrays],
    predictions: Mapping[str, dict[str, Floats]],
    metrics: Mapping[str, Metrics],
    progress: Progress,
    metadata: Mapping[str, Any],
) -> None:
    """metrics.json, predictions as CSV, learning curve and parity pictures."""
    summary = {key: value for key, value in metadata.items() if key not in ("recipe", "data")}
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    learning_curve(progress.history, folder / "learning_curve.png")
    for name, arrays in parts.items():
        write_predictions(folder, name, task.targets, predictions[name], arrays)
        draw_parity(folder / f"parity_{name}.png", task.targets, predictions[name], arrays)


def write_predictions(
    folder: Path, name: str, targets: Sequence[Target], predicted: dict[str, Floats], arrays: StructureArrays
) -> list[Path]:
    """CSV files id,target,prediction as in the JARVIS-Leaderboard: one a target, or energies per atom in eV."""
    if "targets" in predicted:
        columns = [
            (target.name, predicted["targets"][:, i], arrays.values["targets"][:, i])
            for i, target in enumerate(targets)
        ]
    else:
        energies = arrays.values["energy"]
        columns = [("energy_per_atom", predicted["energy"] / arrays.n_atoms, energies / arrays.n_atoms)]
    files = []
    for quantity, ours, wanted in columns:
        words = ["predictions", name, re.sub(r"[\\/]", "-", quantity) if len(columns) > 1 else ""]
        file = folder / ("_".join(word for word in words if word) + ".csv")
        rows = (
            (key, "" if np.isnan(value) else f"{value:.8g}", f"{prediction:.8g}")
            for key, value, prediction in zip(arrays.ids, wanted, ours, strict=True)
        )
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("id", "target", "prediction"))
            writer.writerows(rows)
        files.append(file)
    return files


def draw_parity(file: Path, targets: Sequence[Target], predicted: dict[str, Floats], arrays: StructureArrays) -> None:
    """Predicted against true values: of every target, or of energy, forces and stress."""
    if "targets" in predicted:
        panels = [
            (target.name, target.unit, arrays.values["targets"][:, i], predicted["targets"][:, i])
            for i, target in enumerate(targets)
        ]
        parity_picture(file, [(name, unit, {"": (wanted, ours)}) for name, unit, wanted, ours in panels])
        return
    n = arrays.n_atoms
    columns = {
        "energy per atom": ("eV", arrays.values["energy"] / n, predicted["energy"] / n, arrays.kind),
        "forces": ("eV/Å", arrays.values["forces"], predicted["forces"], np.repeat(arrays.kind, n)),
        "stress": ("eV/Å³", arrays.values["stress"], predicted["stress"], arrays.kind),
    }
    parity_picture(
        file,
        [
            (name, unit, {k: (wanted[of == i].ravel(), ours[of == i].ravel()) for i, k in enumerate(arrays.kinds)})
            for name, (unit, wanted, ours, of) in columns.items()
        ],
    )
