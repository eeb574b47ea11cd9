"""Labelling: energies, forces and stresses of structures, and of frames made from them, by any ASE calculator."""

from .calculators import CalculatorSpec, parse_spec
from .recipe import BUILT_IN, Kind, Limits, Recipe, Supercell, Surface, load_recipe
from .run import Summary, duration, export_extxyz, label

__all__ = [
    "BUILT_IN",
    "CalculatorSpec",
    "Kind",
    "Limits",
    "Recipe",
    "Summary",
    "Supercell",
    "Surface",
    "duration",
    "export_extxyz",
    "label",
    "load_recipe",
    "parse_spec",
]
