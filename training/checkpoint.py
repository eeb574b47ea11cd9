"""Checkpoints of a training under way: written whole or not at all, read without unpickling objects."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ase_potnet.file_safety import replacing

LAST = "last.pt"
_VERSION = 2


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Replace the checkpoint of a run; a kill at any moment leaves the old or the new one."""
    path = folder / LAST
    try:
        with replacing(path) as file:
            torch.save({"version": _VERSION, **state}, file)
    except RuntimeError as error:  # torch's way to say that the disk is full
        raise OSError(f"output: {path} cannot be written; the one before stays ({error})") from error
    return path


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run on the host, None where there is none.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    path = folder / LAST
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"output: the checkpoint {path} is damaged; train with --restart to start over") from error
    if state.get("version") != _VERSION:
        raise ValueError(f"output: the checkpoint {path} is of another version; train with --restart to start over")
    return state
