"""Results as text."""

from __future__ import annotations

from .assessment import Assessment

_MEASURES = ("mae", "rmse", "r2", "max", "count")


def assessment_table(result: Assessment) -> str:
    """Errors by quantity, then by element where there are any, and what was written."""
    lines = [f"{result.n_structures:,} structures", *result.notes]
    width = max([8, *(len(name) for name in result.metrics)])
    lines.append(f"{'':{width}}" + "".join(f"{name.upper():>12}" for name in _MEASURES) + "  unit")
    for quantity, measures in result.metrics.items():
        cells = (f"{measures[name]:>12.5g}" if name in measures else f"{'-':>12}" for name in _MEASURES)
        lost = measures.get("not_finite", 0)
        line = f"{quantity:{width}}" + "".join(cells) + f"  {result.units[quantity]}"
        lines.append(line + (f"  {lost:.0f} predictions not finite" if lost else ""))
    if result.by_element:
        lines += ["", f"{'element':8}{'atoms':>10}{'force MAE':>12}{'energy MAE':>12}  (eV/Å, eV/atom)"]
        for symbol, measures in sorted(result.by_element.items(), key=lambda item: -item[1].get("forces_count", 0)):
            counts = f"{symbol:8}{measures.get('forces_count', 0) / 3:>10.0f}"
            force, energy = measures.get("forces_mae"), measures.get("energy_mae")
            lines.append(
                counts
                + (f"{'-':>12}" if force is None else f"{force:>12.3g}")
                + (f"{'-':>12}" if energy is None else f"{energy:>12.3g}")
            )
    lines += [f"wrote {file}" for file in result.files]
    return "\n".join(lines)
