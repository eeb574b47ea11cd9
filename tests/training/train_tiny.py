"""A training in a process of its own: python train_tiny.py RECIPE. STEP_DELAY: seconds to sleep before a step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ase_potnet.training import reporting
from ase_potnet.training.module import Training
from ase_potnet.training.run import train


def main(recipe: str, delay: float) -> None:
    """Train without pictures, slowly."""
    sys.path.insert(0, str(Path(__file__).parent))
    import tiny_models

    torch.set_num_threads(1)
    tiny_models.register()
    for picture in ("learning_curve", "parity_picture"):
        setattr(reporting, picture, lambda *args: None)
    step = Training.training_step

    def slow(self: Training, *args: Any) -> Any:
        time.sleep(delay)
        return step(self, *args)

    Training.training_step = slow  # type: ignore[method-assign]
    result = train(recipe, progress=False)
    print("finished" if result.finished else "stopped", result.reason)


if __name__ == "__main__":
    main(sys.argv[1], float(os.environ.get("STEP_DELAY", "0")))
