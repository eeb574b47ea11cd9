"""Values whose derivatives compute them again, so that nothing is kept in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), differentiable to every order."""
    from torch.utils.checkpoint import checkpoint  # in torch 2.6 it brings sympy along

    value: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return value
