"""A training under torchrun that keeps the gradients of its first step: python gradients.py RECIPE OUT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from ase_potnet.training import reporting
from ase_potnet.training.module import Training
from ase_potnet.training.run import train

Gradients = dict[str, torch.Tensor]


class Recorder:
    """Keeps the gradients of the first step of a training, and the number of structures in it as "rows"."""

    def __init__(self) -> None:
        self.gradients: Gradients = {}
        self.rows = 0
        self.start = Training.on_train_batch_start

    def on_train_batch_start(self, training: Training, batch: Any, batch_idx: int) -> None:
        self.rows = len(batch.weight)
        self.start(training, batch, batch_idx)

    def on_before_optimizer_step(self, training: Training, optimizer: Any) -> None:
        if not self.gradients:
            parameters = training.model.named_parameters()
            self.gradients = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
            self.gradients["rows"] = torch.tensor(self.rows)

    def hooks(self) -> dict[str, Any]:
        """Methods to put into `Training`."""
        return {
            "on_train_batch_start": lambda training, *args: self.on_train_batch_start(training, *args),
            "on_before_optimizer_step": lambda training, *args: self.on_before_optimizer_step(training, *args),
        }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import tiny_models

    torch.set_num_threads(1)
    tiny_models.register()
    for picture in ("learning_curve", "parity_picture"):
        setattr(reporting, picture, lambda *args: None)
    recorder = Recorder()
    for name, hook in recorder.hooks().items():
        setattr(Training, name, hook)
    result = train(sys.argv[1], progress=False)
    rank = 1 if result.reason == "another process reports" else 0
    torch.save(recorder.gradients, f"{sys.argv[2]}.{rank}")
