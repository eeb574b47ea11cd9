"""PotNetCalculator among ASE's plugins (entry point ``ase.plugins``); imports neither torch nor the calculator."""

from __future__ import annotations

from typing import Any

__ase_plugins__: set[Any]

try:  # still experimental in ASE: where it has moved, other plugins must go on working
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    __ase_plugins__ = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name="potnet",
            citation="Lin, Yan, Luo, Liu, Qian, Ji: ICML 2023, arXiv:2306.10045",
            implementation="ase_potnet.calculator.PotNetCalculator",
        )
    }
