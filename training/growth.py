"""A wider network that starts as a trained narrower one."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ase_potnet.models.equivariant_potnet import EquivariantPotNet, EquivariantPotNetConfig

Blocks = list[int]  # sizes of the parts that an axis consists of

# axes of the parameters, outputs before inputs: names that ``_places`` knows; "<" marks the axis of the inputs
_AXES = {
    r"embedding\.weight": ("elements", "channels"),
    r"layers\.\d+\.senders\.(\d)\.weight": ("message {0}", "<channels"),
    r"layers\.(\d+)\.mixing\.(\d)": ("<sums {0} {1}", "two"),
    r"layers\.\d+\.gain\.weight": ("two", "<channels"),
    r"layers\.\d+\.update\.0\.weight": ("hidden", "<invariants"),
    r"layers\.\d+\.update\.2\.weight": ("hidden", "<hidden"),
    r"layers\.\d+\.update\.\d\.bias": ("hidden",),
    r"layers\.\d+\.residual\.weight": ("channels", "<hidden"),
    r"layers\.\d+\.residual\.bias": ("channels",),
    r"layers\.\d+\.outputs\.\d\.weight": ("channels", "<three"),
    r"layers\.\d+\.gates\.weight": ("two", "<hidden"),
    r"layers\.\d+\.(?:gain|gates)\.bias": ("two",),
    r"layers\.\d+\.fields\.weight": ("two", "<fields"),
    r"readouts\.\d+\.layers\.0\.weight": ("readout", "<channels"),
    r"readouts\.\d+\.layers\.0\.bias": ("readout",),
    r"readouts\.\d+\.layers\.2\.weight": ("one", "<readout"),
    r"sources\.(?:donors|sources)\.weight": ("sources", "<channels"),
    r"sources\.weights": ("<radial", "sources"),
}


def can_grow(source: EquivariantPotNetConfig, wider: EquivariantPotNetConfig) -> bool:
    """Whether one network is the other with more channels, messages or radial functions."""
    same = ("n_layers", "n_sources", "neutral", "fields")
    sizes = [(c.width, *c.message_width, *c.n_radial) for c in (source, wider)]
    return (
        all(getattr(source, name) == getattr(wider, name) for name in same)
        and len(source.n_radial) == len(wider.n_radial)
        and all(old <= new for old, new in zip(*sizes, strict=True))
        and sizes[0] != sizes[1]
    )


@torch.no_grad()
def grow(source: EquivariantPotNet, wider: EquivariantPotNet) -> None:
    """Give a wider network, with fresh weights, those of a narrower one.

    What was there reads nothing of what is new, so both say nearly the same. (Sums are divided by their norm over all
    channels, new ones too.) What is new keeps its fresh weights, scaled to the size of the trained ones.
    Source: T. Chen, I. Goodfellow, J. Shlens, Net2Net (ICLR 2016), for the idea.
    """
    parameters = dict(source.named_parameters())
    for name, fresh in wider.named_parameters():
        trained = parameters[name].to(fresh)
        axes = _axes(name)
        if trained.shape == fresh.shape or axes is None:
            fresh.copy_(trained)
            continue
        if trained.dim() > 1:
            fresh.mul_(trained.std() / fresh.std())
        places = [
            _places(axis, source.config, wider.config, size) for axis, size in zip(axes, fresh.shape, strict=True)
        ]
        for axis, kind in enumerate(axes):
            if kind.startswith("<"):
                of_outputs = [torch.arange(size) if k == axis else places[k] for k, size in enumerate(fresh.shape)]
                fresh[torch.meshgrid(*of_outputs, indexing="ij")] = 0
        fresh[torch.meshgrid(*places, indexing="ij")] = trained


def _axes(name: str) -> tuple[str, ...] | None:
    for pattern, axes in _AXES.items():
        match = re.fullmatch(pattern, name)
        if match:
            return tuple(axis.format(*match.groups()) for axis in axes)
    return None


def _places(axis: str, old: EquivariantPotNetConfig, new: EquivariantPotNetConfig, size: int) -> Tensor:
    """Where the entries of an axis of the old network are in the new one."""
    name, *numbers = axis.removeprefix("<").split()
    if name in ("elements", "one", "sources", "fields"):
        return torch.arange(size)
    if name == "sums":  # radial functions times channels of messages
        layer, degree = map(int, numbers)
        channels = [config.message_width[: 1 if layer == 0 else 3] for config in (old, new)]
        within = _in_blocks(*map(list, channels))
        rows = torch.arange(old.n_radial[degree])[:, None] * sum(channels[1]) + within
        return rows.flatten()
    if name == "message":
        return torch.arange(old.message_width[int(numbers[0])])
    rest = size - 5 * new.width  # complete potentials among the invariants
    return _in_blocks(*(_blocks(name, config, rest) for config in (old, new)))


def _blocks(name: str, config: EquivariantPotNetConfig, rest: int) -> Blocks:
    width = config.width
    blocks = {
        "channels": [width],
        "two": [width] * 2,
        "three": [width] * 3,
        "hidden": [2 * width],
        "readout": [width // 2],
        "invariants": [width] * 5 + [rest],
        "radial": [config.n_radial[0]],
    }
    return blocks[name]


def _in_blocks(old: Blocks, new: Blocks) -> Tensor:
    """Places of the entries of the old blocks, each at the start of its new block."""
    starts = torch.tensor([0, *new[:-1]]).cumsum(0).tolist()
    return torch.cat([start + torch.arange(size) for start, size in zip(starts, old, strict=True)])
