"""Losses: sums over the labels that exist, and how many these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LossKind = Literal["mse", "l1", "huber", "norm"]
LOSS_KINDS: tuple[LossKind, ...] = ("mse", "l1", "huber", "norm")


@dataclass(frozen=True)
class LossTerm:
    """One part of the loss over a batch, Σ weight · loss / count.

    name: as in logs
    total: sum of the losses of the labels present, ()
    count: number of labels present, ()
    weight: of the term
    """

    name: str
    total: Tensor
    count: Tensor
    weight: float = 1.0


def masked_loss(
    kind: LossKind, error: Tensor, known: Tensor, frame_weight: Tensor | None = None, delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Sum of the losses and number of the labels.

    Args:
        kind: "mse", error²; "l1", |error|; "huber", error²/2 up to delta, linear beyond; "norm", the length of each
            row, counted once a row.
        error: (n, ...) prediction minus label; what lies where known is False does not matter, NaN included.
        known: as error, bool.
        frame_weight: (n,) factors of the rows; the count stays as it is.
        delta: of the Huber loss, unit of the error.
    """
    error = torch.where(known, error, torch.zeros((), dtype=error.dtype, device=error.device))
    if kind == "norm":
        rows = error.flatten(1) if error.ndim > 1 else error[:, None]
        known = known.flatten(1).any(1) if known.ndim > 1 else known
        # the gradient of the norm at zero is NaN under a mask: keep away from it
        square = (rows * rows).sum(1)
        positive = square > 0
        loss = torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), square)
    elif kind == "mse":
        loss = error * error
    elif kind == "l1":
        loss = error.abs()
    elif kind == "huber":
        loss = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
    else:
        raise ValueError(f"kind: wanted one of {', '.join(LOSS_KINDS)}, got {kind!r}")
    if frame_weight is not None:
        loss = loss * frame_weight.reshape(-1, *[1] * (loss.ndim - 1))
    return loss.sum(), known.sum()


def combine(terms: list[LossTerm], counts: list[Tensor] | None = None, world: int = 1) -> Tensor:
    """Σ weight · total / count, terms without a label left out.

    Args:
        counts: over all processes, where there are several; the gradients that these average are then those of the
            loss of the joint batch.
    """
    total = terms[0].total.new_zeros(())
    for term, count in zip(terms, counts or [term.count for term in terms], strict=True):
        total = total + term.weight * world * term.total / count.clamp(min=1)
    return total
