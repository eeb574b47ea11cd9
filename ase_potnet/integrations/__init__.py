"""Tools that people already use: phonopy, phono3py, ASE's plugins. Each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_potnet.integrations.harmonic import PhononWarning, imaginary_modes, phonons
    from ase_potnet.integrations.potnet_mlp import PotNetMLP
    from ase_potnet.integrations.relaxation import relax
    from ase_potnet.integrations.supercells import supercell_matrix
    from ase_potnet.integrations.volumes import gruneisen, quasi_harmonic

__all__ = [
    "PhononWarning",
    "PotNetMLP",
    "gruneisen",
    "imaginary_modes",
    "phonons",
    "quasi_harmonic",
    "relax",
    "supercell_matrix",
]

_HOMES = {
    "PhononWarning": "harmonic",
    "PotNetMLP": "potnet_mlp",
    "gruneisen": "volumes",
    "imaginary_modes": "harmonic",
    "phonons": "harmonic",
    "quasi_harmonic": "volumes",
    "relax": "relaxation",
    "supercell_matrix": "supercells",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
