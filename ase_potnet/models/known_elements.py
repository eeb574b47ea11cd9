"""Which elements a network knows."""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn


class KnowsElements(nn.Module):
    """A network that refuses elements which its training set did not hold.

    elements: (n_elements,) bool by atomic number, those that it knows; all until a training says so
    """

    elements: Tensor

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.register_buffer("elements", torch.arange(n_elements) > 0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}elements", self.elements)  # of older weights
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def require_elements(self, numbers: Tensor) -> None:
        """Raises ValueError for elements that the training set did not hold."""
        n_elements = len(self.elements)
        known = self.elements[numbers.clamp(max=n_elements - 1)] & (numbers < n_elements)
        if not bool(known.all()):
            unknown = sorted({chemical_symbols[z] for z in numbers[~known].tolist()})
            raise ValueError(f"atoms must hold elements of the training set; it had no {', '.join(unknown)}")
