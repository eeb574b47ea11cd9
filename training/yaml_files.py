"""Recipes in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError naming the file."""
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file}: wanted keys and values, got {type(data).__name__}")
    return data
