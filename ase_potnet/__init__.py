"""Complete interatomic potentials of crystals.

Importing the package is cheap: submodules, and torch with them, load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_potnet import graph, lattice

    __version__: str

__all__ = ["__version__", "graph", "lattice"]

_SUBMODULES = frozenset({"graph", "lattice"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("ase-potnet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
