"""Screen crystals: relax them, compress them, write a table and a page. Run it twice: nothing is done again.

Needs the packaged weights. `--quick` takes five crystals. Draws the bulk moduli beside measured ones, and writes
04_screening.db, .csv and .html (open it in a browser) to the current folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from ase.build import bulk

from ase_potnet.screening import records, screen
from ase_potnet.screening.export import export
from ase_potnet.screening.report import write_report

# structure, lattice constant (Å), measured bulk modulus (GPa)
CRYSTALS = {
    "Si": ("diamond", 5.43, 99),
    "NaCl": ("rocksalt", 5.64, 25),
    "MgO": ("rocksalt", 4.21, 165),
    "Cu": ("fcc", 3.61, 140),
    "Al": ("fcc", 4.05, 76),
    "W": ("bcc", 3.16, 310),
    "LiF": ("rocksalt", 4.03, 67),
    "GaAs": ("zincblende", 5.65, 75),
    "C": ("diamond", 3.57, 443),
    "TiC": ("rocksalt", 4.33, 240),
    "CsCl": ("cesiumchloride", 4.12, 17),
    "Ag": ("fcc", 4.09, 101),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five crystals only")
    chosen = list(CRYSTALS)[: 5 if parser.parse_args().quick else None]
    crystals = [(name, bulk(name, CRYSTALS[name][0], a=CRYSTALS[name][1])) for name in chosen]
    results = Path("04_screening.db")
    with screen(crystals, "relax,energy,eos", results) as run:
        for record in run:
            modulus = record.values.get("bulk_modulus")
            print(f"{record.id:5}", f"{modulus:.0f} GPa" if modulus else f"{record.reason}: {record.message}")
    print(run.summary)
    print("written:", export(results, "04_screening.csv"), write_report(results, "04_screening.html"))

    found = {r.id: r.values["bulk_modulus"] for r in records(results) if "bulk_modulus" in r.values}
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    largest = 1.1 * max(CRYSTALS[name][2] for name in chosen)
    axes.plot([0, largest], [0, largest], color="0.7", zorder=0)
    axes.scatter([CRYSTALS[name][2] for name in found], list(found.values()))
    for name, modulus in found.items():
        axes.annotate(name, (CRYSTALS[name][2], modulus), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="bulk modulus, measured (GPa)", ylabel="bulk modulus, potential (GPa)")
    figure.savefig("04_screening.png", dpi=150)


if __name__ == "__main__":
    main()
