"""The package in `training/`, for Python started in a checkout.

A wheel holds that package as `ase_potnet/training/`, which Python takes before this file.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "training")]
