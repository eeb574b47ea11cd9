"""Models by name: what checkpoints and recipes refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import nn

_CLASSES = {
    "potnet": ("ase_potnet.models.potnet", "PotNet"),
    "invariant-potnet": ("ase_potnet.models.invariant_potnet", "InvariantPotNet"),
    "equivariant-potnet": ("ase_potnet.models.equivariant_potnet", "EquivariantPotNet"),
    "equivariant-properties": ("ase_potnet.models.equivariant_properties", "EquivariantProperties"),
    "mean-of-models": ("ase_potnet.models.mean_of_models", "MeanOfModels"),
}
MODEL_NAMES = tuple(_CLASSES)


def build_model(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A model with fresh weights.

    Args:
        name: one of ``MODEL_NAMES``.
        options: fields of the model's config dataclass; the others keep their defaults.

    Raises:
        ValueError: naming name or options, with the nearest valid word.
    """
    model_class, defaults = _model_class(name), _defaults(name)
    known = tuple(defaults)
    for key, value in (options or {}).items():
        if key not in known:
            raise ValueError(f"options: {name} has no option {key!r}{_hint(key, known)}; there are {', '.join(known)}")
        if isinstance(defaults[key], int | float) and not isinstance(value, int | float):
            raise ValueError(f"options: {key} of {name} must be of the kind of {defaults[key]!r}, got {value!r}")
    model: nn.Module = model_class(model_class.Config(**(options or {})))
    return model


def option_names(name: str) -> tuple[str, ...]:
    """Fields of a model's config dataclass. Raises ValueError for an unknown name."""
    return tuple(_defaults(name))


def _defaults(name: str) -> dict[str, Any]:
    """Fields of a model's config dataclass and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(_model_class(name).Config)}


def _model_class(name: str) -> Any:
    if name not in _CLASSES:
        raise ValueError(f"name: no model {name!r}{_hint(name, MODEL_NAMES)}; there are {', '.join(MODEL_NAMES)}")
    module, attribute = _CLASSES[name]
    return getattr(import_module(module), attribute)


def model_name(model: nn.Module) -> str:
    """The name under which ``build_model`` makes models of this class. Raises ValueError for any other class."""
    for name, (_, attribute) in _CLASSES.items():
        if type(model).__name__ == attribute:
            return name
    raise ValueError(f"model must be one of {', '.join(MODEL_NAMES)}, got {type(model).__name__}")


def predicts_properties(model: nn.Module) -> bool:
    """Whether a network predicts properties, rather than the energies of atoms."""
    return hasattr(model, "scaling") or hasattr(model, "members")


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(word, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""
