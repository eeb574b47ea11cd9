"""Trainings of an ablation: each with the same processor time, one after another, results kept as they come."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ase_potnet.training.recipe import load_recipe
from ase_potnet.training.run import train

Row = dict[str, Any]


def run_all(
    recipes: dict[str, dict[str, Any]], folder: Path, *, seconds: float | None = None, epochs: int | None = None
) -> dict[str, Row]:
    """Rows by name of the recipe, also in results.json of the folder; those that are there are not run again.

    A training that was interrupted goes on. Every one gets `seconds` of processor time, validations after its epochs
    included, the last one not; or the same number of epochs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    rows: dict[str, Row] = json.loads(file.read_text()) if file.is_file() else {}
    for name, recipe in recipes.items():
        if name in rows:
            continue
        print(f"{name}:", flush=True)
        output = folder / name.replace(" ", "_").replace(",", "")
        optimiser = recipe["optimiser"] | {"seconds": seconds, "clock": "cpu"}
        changes = {"output": str(output), "optimiser": optimiser} | ({} if epochs is None else {"epochs": epochs})
        result = train(load_recipe(recipe | changes))
        assert result.finished
        assert result.model is not None
        log = list(csv.DictReader((output / "log.csv").read_text().splitlines()))
        metadata = json.loads((result.model / "config.json").read_text())["metadata"]
        done, spent = float(log[-1]["epochs"]), seconds or float(log[-1]["seconds"])
        rows[name] = {
            "parameters": metadata["n_parameters"],
            "n_train": metadata["n_train"],
            "seconds": spent,
            "epochs": done,
            "seconds_per_epoch": spent / done,
            "steps": metadata["steps"],
            "metrics": result.metrics["val"],
            "model": str(result.model),
        }
        file.write_text(json.dumps(rows, indent=2) + "\n")
    return {name: rows[name] for name in recipes}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
