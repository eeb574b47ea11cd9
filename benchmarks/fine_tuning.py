"""Fine-tuning the packaged potential, and what it forgets.

    python benchmarks/fine_tuning.py NAME=TRAIN.extxyz,TEST.extxyz [more ...] --rest OTHERS.extxyz
        [--replay CRYSTALS] [--minutes 1] [--frames 100] [--model default] [--output DIR]

For every set the recipe `fine_tune` is run for the same processor time: alone, with the first layer frozen, with replay
frames of random crystals, and, if given, of the CRYSTALS, whose labels are not used. The table has errors before and
after on the set's own test frames and on frames of the rest of the periodic table, energies after a least-squares shift
per element. The same command goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ablation_runs import table

from ase_potnet.training.assessment import assess
from ase_potnet.training.recipe import load_recipe
from ase_potnet.training.run import train

WAYS: dict[str, dict[str, Any]] = {
    "fine-tuned, nothing else": {"data.replay": None},
    "fine-tuned, first layer frozen": {"data.replay": None, "model.freeze": ["embedding.*", "layers.0.*"]},
    "fine-tuned, replay of random crystals": {},
    "fine-tuned, replay of real crystals": {"data.replay.path": None},
}
GPA = 160.21766


def errors(model: str, frames: str, limit: int | None) -> list[str]:
    """Mean absolute errors: energy meV/atom, forces eV/Å, stress GPa."""
    found = assess(model, frames, limit=limit, fit_shifts=True, dtype=torch.float32, device="cpu", progress=False)
    maes = [found.metrics[name]["mae"] for name in ("energy_per_atom", "forces", "stress")]
    return [f"{1e3 * maes[0]:.1f}", f"{maes[1]:.4f}", f"{GPA * maes[2]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME=TRAIN,TEST")
    parser.add_argument("--rest", required=True, help="frames of all kinds of crystals")
    parser.add_argument("--rest-frames", type=int, default=200, help="how many of them")
    parser.add_argument("--replay", help="crystals for replay")
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time for each training")
    parser.add_argument("--frames", type=int, default=100, help="training frames")
    parser.add_argument("--model", default="default")
    parser.add_argument("--output", type=Path, default=Path("runs/fine_tuning"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "results.json"
    rows: dict[str, list[str]] = json.loads(file.read_text()) if file.is_file() else {}

    def measured(key: str, model: str, test: str) -> list[str]:
        if key not in rows:
            rows[key] = errors(model, test, None) + errors(model, options.rest, options.rest_frames)
            file.write_text(json.dumps(rows, indent=2) + "\n")
        return rows[key]

    lines = []
    for item in options.sets:
        name, _, files = item.partition("=")
        training, test = files.split(",")
        lines.append([name, "before", *measured(f"{name}: before", options.model, test)])
        for number, (way, changes) in enumerate(WAYS.items()):
            if "data.replay.path" in changes:
                if options.replay is None:
                    continue
                changes = {"data.replay.path": options.replay}
            key = f"{name}: {way}"
            folder = options.output / f"{name}_{number}"
            if key not in rows:
                overrides = {
                    "output": str(folder),
                    "data.path": training,
                    "data.max_structures": options.frames,
                    "model.start_from": options.model,
                    "optimiser.seconds": 60 * options.minutes,
                    "optimiser.clock": "cpu",
                }
                print(key, flush=True)
                train(load_recipe("fine_tune", overrides | changes))
            lines.append([name, way, *measured(key, str(folder / "model"), test)])
    units = ("energy, meV/atom", "forces, eV/Å", "stress, GPa")
    text = table(["set", "potential", *units, *(f"rest: {unit}" for unit in units)], lines)
    (options.output / "table.md").write_text(text + "\n")
    print(f"\n{options.frames} training frames, {options.minutes:g} minutes of processor time each\n\n{text}")


if __name__ == "__main__":
    main()
