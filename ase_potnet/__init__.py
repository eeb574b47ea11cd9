"""Complete interatomic potentials of crystals.

Importing the package is cheap: submodules, and torch with them, load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_potnet import graph, lattice
    from ase_potnet.calculator import PotNetCalculator, register
    from ase_potnet.evaluation import evaluate
    from ase_potnet.prediction import predict
    from ase_potnet.pretrained import list_models, load_model

    __version__: str

__all__ = [
    "PotNetCalculator",
    "__version__",
    "evaluate",
    "graph",
    "lattice",
    "list_models",
    "load_model",
    "predict",
    "register",
]

_SUBMODULES = frozenset({"graph", "lattice"})
_HOMES = {
    "PotNetCalculator": "calculator",
    "evaluate": "evaluation",
    "list_models": "pretrained",
    "load_model": "pretrained",
    "predict": "prediction",
    "register": "calculator",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("ase-potnet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
