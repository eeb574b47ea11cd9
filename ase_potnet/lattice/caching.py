"""Tensors that are kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def cache_tensors(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """``lru_cache`` of tensors, made outside of inference mode: later calls may save them for gradients."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kept: Any = lru_cache(maxsize)(torch.inference_mode(mode=False)(function))
        return kept

    return decorate


class cached_tensor(cached_property[T]):
    """``cached_property`` of a tensor, made outside of inference mode."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        super().__init__(torch.inference_mode(mode=False)(function))
