"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """decay · average + (1 - decay) · weights after every step; buffers such as running means are averaged, too.

    The decay grows from 2/11 as (1 + steps) / (10 + steps), so that the first weights are soon forgotten.

    Args:
        model: starts the average.
        decay: of the average, 0 for none: the average is then the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = model.state_dict()
        floats = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floats], [current[name] for name in floats], 1 - decay)
        for name in current.keys() - set(floats):
            self.state[name].copy_(current[name])

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights; its own come back afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def to(self, device: torch.device) -> None:
        """Move the average to the device of the model."""
        self.state = {name: tensor.to(device) for name, tensor in self.state.items()}

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """What a checkpoint needs."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, saved: dict[str, int | dict[str, Tensor]]) -> None:
        """Continue from a checkpoint."""
        steps, state = saved["steps"], saved["state"]
        assert isinstance(steps, int)
        assert isinstance(state, dict)
        self.steps = steps
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
