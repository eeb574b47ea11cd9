"""MeanOfModels: several property models that answer as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch


@dataclass(frozen=True)
class MeanOfModelsConfig:
    """members: {"model": name, "options": {...}} of every member, as ``build_model`` takes them"""

    members: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members or any(set(member) != {"model", "options"} for member in self.members):
            raise ValueError(f"members must be mappings with 'model' and 'options', one or more, got {self.members}")

    @property
    def n_targets(self) -> int:
        """As many as each member predicts."""
        return int(self.members[0]["options"]["n_targets"])


class MeanOfModels(nn.Module):
    """Mean of the predictions of property models that were trained apart; each predicts the same targets.

    Networks of different kinds err differently, so that their mean errs less. It is made of trained members, not
    trained itself.
    """

    Config = MeanOfModelsConfig

    def __init__(self, config: MeanOfModelsConfig) -> None:
        from ase_potnet.models.registry import build_model

        super().__init__()
        members: list[Any] = [build_model(member["model"], member["options"]) for member in config.members]
        counts = {member.config.n_targets for member in members}
        if len(counts) > 1:
            raise ValueError(f"members must predict equally many targets, got {sorted(counts)}")
        self.members = nn.ModuleList(members)
        names = [member["model"] for member in config.members]
        self.config = MeanOfModelsConfig(  # with all options, so that no folder depends on what the defaults were
            [{"model": name, "options": asdict(member.config)} for name, member in zip(names, members, strict=True)]
        )

    def forward(self, atoms: AtomsBatch) -> Tensor:
        """Predictions in physical units. (B, n_targets)"""
        return torch.stack([member(atoms) for member in self.members]).mean(0)
