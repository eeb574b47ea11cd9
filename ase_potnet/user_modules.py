"""Modules of the user, named on a command line."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def import_from_here(name: str) -> ModuleType:
    """Import a module, from the current folder too, which comes last: installed packages keep their names."""
    here = os.getcwd()  # noqa: PTH109  (text is what sys.path holds)
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)
