"""Features of the elements: one-hot bins of nine properties, as CGCNN has them.

Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), supplement, table of atomic properties: continuous properties
in ten equal bins of the stated range (ionisation energy and atomic volume on a logarithmic scale), discrete ones in a
category each. Derived anew from element data (``element_data.json``), not copied from any table of vectors.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

MAX_NUMBER = 118
N_FEATURES = 92
_BLOCKS = "spdf"
_BINS = 10

# column: categories (discrete) or range (continuous)
_GROUPS = 19  # 1 to 18; 0 for the f block
_PERIODS = 7
_VALENCE = 12
_ELECTRONEGATIVITY = (0.5, 4.0)
_RADIUS = (25.0, 250.0)  # pm
_IONISATION = (1.3, 3.3)  # ln eV
_AFFINITY = (-3.0, 3.7)  # eV
_VOLUME = (1.5, 4.3)  # ln cm^3/mol


@lru_cache(maxsize=1)
def element_features() -> Tensor:
    """Features of atomic numbers 0 to 118; row 0 is zero. (119, 92), zeros and ones, float32

    group (19), period (7), electronegativity (10), covalent radius (10), valence electrons (12), first ionisation
    energy (10), electron affinity (10), block (4), atomic volume (10). A property that is not known for an element
    has no bin: from Z = 104 on only group, period and block are known.
    """
    text = files("ase_potnet.models").joinpath("element_data.json").read_text(encoding="utf-8")
    rows = [[0.0] * N_FEATURES, *(_one_element(row) for row in json.loads(text)["elements"])]
    return torch.tensor(rows, dtype=torch.float32)


def _one_element(row: list[Any]) -> list[float]:
    group, period, electronegativity, radius, valence, ionisation, affinity, block, volume = row
    return [
        *_one_hot(group, _GROUPS),
        *_one_hot(period - 1, _PERIODS),
        *_one_hot(_bin(electronegativity, _ELECTRONEGATIVITY), _BINS),
        *_one_hot(_bin(radius, _RADIUS), _BINS),
        *_one_hot(None if valence is None else valence - 1, _VALENCE),
        *_one_hot(_bin(None if ionisation is None else math.log(ionisation), _IONISATION), _BINS),
        *_one_hot(_bin(affinity, _AFFINITY), _BINS),
        *_one_hot(_BLOCKS.index(block), len(_BLOCKS)),
        *_one_hot(_bin(None if volume is None else math.log(volume), _VOLUME), _BINS),
    ]


def _bin(value: float | None, limits: tuple[float, float]) -> int | None:
    """Which of the ten equal bins; values outside the range belong to the first or the last."""
    if value is None:
        return None
    low, high = limits
    return min(max(int(_BINS * (value - low) / (high - low)), 0), _BINS - 1)


def _one_hot(index: int | None, size: int) -> list[float]:
    vector = [0.0] * size
    if index is not None:
        vector[index] = 1.0
    return vector
