"""Products of small matrices, without derivatives: numpy's BLAS needs a third to a half of the time of torch's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SMALL = 1 << 18  # multiply-adds of one product, up to which numpy's BLAS keeps to one thread
_FEW_THREADS = 2  # of torch: more of them are faster together than one of numpy


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """left (B, n, I, K) times right (B, K, J), in ``out`` (B, n, I, J)."""
    small = left.shape[2] * left.shape[3] * right.shape[2] <= _SMALL
    if small and out.device.type == "cpu" and torch.get_num_threads() <= _FEW_THREADS:
        np.matmul(left.detach().numpy(), right.detach().numpy()[:, None], out=out.numpy())
    else:
        torch.bmm(left.flatten(1, 2), right, out=out.flatten(1, 2))
