"""Learning curves and parity pictures as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import Floats

_MOST_POINTS = 20_000  # drawn of each set of a parity picture


def learning_curve(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Training losses, and errors on the validation part, against the epoch."""
    figure, (left, right) = _figure(2)
    epochs = [row["epoch"] + 1 for row in history]
    for name in dict.fromkeys(key for row in history for key in row if key.startswith("train_")):
        left.plot(epochs, [row.get(name, np.nan) for row in history], label=name.removeprefix("train_"))
    for name in dict.fromkeys(key for row in history for key in row if key.endswith("_mae") and "/" not in key):
        label = name.removeprefix("val_").removesuffix("_mae")
        right.plot(epochs, [row.get(name, np.nan) for row in history], label=label)
    for axes, title in ((left, "training loss"), (right, "validation MAE")):
        axes.set(xlabel="epoch", title=title, yscale="log")
        if axes.lines:
            axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def parity_picture(file: Path, panels: Sequence[tuple[str, str, Mapping[str, tuple[Floats, Floats]]]]) -> None:
    """Predicted against true values.

    Args:
        file: to write.
        panels: (quantity, unit, {set: (true, predicted)}) of each panel; NaN is left out.
    """
    figure, all_axes = _figure(len(panels))
    for axes, (quantity, unit, sets) in zip(all_axes, panels, strict=True):
        ends = []
        for name, (wanted, ours) in sets.items():
            known = np.isfinite(wanted) & np.isfinite(ours)
            if not known.any():
                continue
            step = max(1, int(known.sum()) // _MOST_POINTS)
            x, y = wanted[known], ours[known]
            mae = float(np.abs(y - x).mean())
            label = f"{name + ': ' if name else ''}MAE {mae:.3g}{' ' + unit if unit else ''}"
            axes.scatter(x[::step], y[::step], s=4, alpha=0.4, linewidths=0, label=label, rasterized=True)
            ends += [x.min(), x.max(), y.min(), y.max()]
        if ends:
            axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.4", linewidth=0.8, zorder=0)
            axes.legend(frameon=False, loc="upper left")
        brackets = f" ({unit})" if unit else ""
        axes.set(xlabel=f"true{brackets}", ylabel=f"predicted{brackets}", title=quantity)
    figure.savefig(file, dpi=120)


def element_picture(file: Path, by_element: Mapping[str, Mapping[str, float]]) -> None:
    """Mean absolute errors of forces and energies by element, in the order of atomic numbers.

    Args:
        file: to write.
        by_element: as from `errors_by_element`.
    """
    from matplotlib.figure import Figure

    symbols = list(by_element)
    figure = Figure(figsize=(max(6.0, 0.22 * len(symbols)), 5.0), layout="constrained")
    for axes, name, unit in zip(figure.subplots(2, 1), ("forces", "energy"), ("eV/Å", "eV/atom"), strict=True):
        axes.bar(range(len(symbols)), [by_element[symbol].get(f"{name}_mae", 0.0) for symbol in symbols])
        axes.set_xticks(range(len(symbols)), symbols, fontsize=7)
        axes.set(ylabel=f"MAE of {name}, {unit}", xlim=(-0.7, len(symbols) - 0.3))
    figure.savefig(file, dpi=120)


def _figure(n_panels: int) -> tuple[Any, list[Any]]:
    """A figure of panels side by side; no display and no global state of matplotlib is touched."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ValueError("matplotlib is not installed: pip install 'ase-potnet[train]'") from error
    figure = Figure(figsize=(4.5 * n_panels, 4.2), layout="constrained")
    axes = figure.subplots(1, n_panels, squeeze=False)
    return figure, list(axes[0])
