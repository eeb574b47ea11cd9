"""Where model folders are looked for: the packaged weights, and paths."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

CONFIG_FILE = "config.json"


def weights_folder() -> Path:
    """The folder of the packaged models."""
    return Path(__file__).parent / "weights"


def list_models() -> list[str]:
    """Names of the packaged models, sorted."""
    return sorted(config.parent.name for config in weights_folder().glob(f"*/{CONFIG_FILE}"))


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a packaged model, or of a model that lies elsewhere. A packaged name wins.

    Raises:
        ValueError: naming model, with the nearest valid name.
    """
    names = list_models()
    if str(name_or_path) in names:
        return weights_folder() / str(name_or_path)
    folder = Path(name_or_path).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return folder
    if folder.is_dir():
        raise ValueError(f"model: the folder {folder} has no {CONFIG_FILE}; it was not written by save_model")
    near = get_close_matches(str(name_or_path), names, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    there = ", ".join(names) or "none in this version"
    raise ValueError(f"model: no packaged model and no folder {str(name_or_path)!r}{hint} Packaged models: {there}.")
