"""With and without infinite sums, published and cell-invariant form, at equal processor time.

    python benchmarks/ablation_jarvis.py jdft_3d-12-12-2022.json.zip [--split split.json] [--minutes 6] [--epochs N]
        [--output DIR]

Formation energies per atom of JARVIS-DFT (https://jarvis.nist.gov, figshare). Five networks are trained one after
another by the package's own training; interrupted, the same command goes on. Without a split file (JSON with the ids of
"train" and "val") the structures are split 80/10/10 with seed 123. Prints a table and writes it beside results.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ablation_runs import run_all, table

NARROW = {"width": 64, "n_local_basis": 64}
NARROW_INVARIANT = {
    "width": 64, "message_width": 64, "n_angular_sources": 8, "angular_width": 16, "n_sources": 8,
}  # fmt: skip
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "published form, 64 wide, local only": ("potnet", NARROW | {"euclidean": True}),
    "published form, 64 wide, infinite sums": ("potnet", NARROW),
    "invariant form, 64 wide, local only": ("invariant-potnet", NARROW_INVARIANT | {"euclidean": True}),
    "invariant form, 64 wide, complete sums": ("invariant-potnet", NARROW_INVARIANT),
    "published form, 256 wide, infinite sums": ("potnet", {}),
}


def recipe(data: str, split: str | None, name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": {
            "path": data,
            "targets": [{"name": "formation_energy", "field": "formation_energy_peratom", "unit": "eV/atom"}],
            "split": {"kind": "seeded"} if split is None else {"kind": "file", "path": split},
        },
        "model": {"name": name, "options": options},
        "loss": {"kind": "l1"},
        "optimiser": {"lr": 1e-3, "weight_decay": 1e-5, "schedule": "one-cycle", "warmup": 0.2},
        "batch": {"structures": 32, "pairs": 30000, "edges": 30000},
        "ema": 0.99,
        "clip": 5.0,
        "seed": 123,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="jdft_3d JSON of JARVIS")
    parser.add_argument("--split", help="JSON with ids")
    parser.add_argument("--minutes", type=float, default=6.0, help="of processor time for each network")
    parser.add_argument("--epochs", type=int, help="for each network, in place of the minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation_jarvis"))
    options = parser.parse_args()
    recipes = {label: recipe(options.data, options.split, *network) for label, network in NETWORKS.items()}
    seconds = 60 * options.minutes if options.epochs is None else None
    rows = run_all(recipes, options.output, seconds=seconds, epochs=options.epochs)
    text = table(
        ["network", "parameters", "epochs reached", "s an epoch", "val MAE, meV/atom"],
        [
            [
                label,
                f"{row['parameters']:,}",
                f"{row['epochs']:.2f}",
                f"{row['seconds_per_epoch']:.0f}",
                f"{1e3 * row['metrics']['formation_energy']['mae']:.1f}",
            ]
            for label, row in rows.items()
        ],
    )
    (options.output / "table.md").write_text(text + "\n")
    budget = f"{options.epochs} epochs" if options.epochs else f"{options.minutes:g} minutes of processor time"
    print(f"\n{budget} each, {next(iter(rows.values()))['n_train']:,} crystals\n")
    print(text)


if __name__ == "__main__":
    main()
