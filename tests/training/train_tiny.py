"""A training in a process of its own: python train_tiny.py RECIPE. STEP_DELAY: seconds to sleep before a step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import tiny_models
import torch

from ase_potnet.training import reporting
from ase_potnet.training.module import Training
from ase_potnet.training.run import train

torch.set_num_threads(1)
tiny_models.register()
for picture in ("learning_curve", "parity_picture"):
    setattr(reporting, picture, lambda *args: None)
delay = float(os.environ.get("STEP_DELAY", "0"))
if delay:
    whole = Training.training_step

    def slow(self: Training, *args: Any) -> Any:
        time.sleep(delay)
        return whole(self, *args)

    Training.training_step = slow  # type: ignore[method-assign]

if __name__ == "__main__":
    result = train(sys.argv[1], progress=False)
    print("finished" if result.finished else "stopped", result.reason)
