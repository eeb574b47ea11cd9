"""Downloads with the owners' own clients, `mp-api` and `jarvis-tools`. Nothing else in this package uses the network.

Both packages are optional and are imported only when a function here is called.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FIELDS = ("material_id", "structure", "formation_energy_per_atom", "energy_above_hull", "band_gap", "bulk_modulus")


def fetch_materials_project(
    path: str | Path, *, fields: Sequence[str] = FIELDS, api_key: str | None = None, **criteria: Any
) -> Path:
    """Download summary documents of the Materials Project to a JSON file (.json or .json.gz) for `open_dataset`.

    Args:
        path: file to write; it appears only when the download is complete
        fields: fields of the summary documents; material_id and structure are always among them
        api_key: key from https://materialsproject.org/api; None takes MP_API_KEY from the environment, or
            PMG_MAPI_KEY from there or from pymatgen's settings
        **criteria: search criteria of `MPRester.materials.summary.search`, such as elements=["Li", "O"],
            energy_above_hull=(0, 0.1), num_sites=(1, 40)

    Raises:
        ImportError: mp-api is not installed.
        ValueError: there is no key.
        ConnectionError: the download failed: network, key or criteria, as the message says.
    """
    client = _load("mp_api.client", "mp-api")
    key = api_key or os.environ.get("MP_API_KEY") or _pymatgen_key()
    if not key:
        raise ValueError(
            "api_key: none given and none in MP_API_KEY; get one at https://materialsproject.org/api and set it"
        )
    wanted = list(dict.fromkeys(["material_id", "structure", *fields]))
    try:
        with client.MPRester(key) as rester:
            documents = rester.materials.summary.search(fields=wanted, all_fields=False, **criteria)
    except Exception as error:  # the client raises many kinds
        raise ConnectionError(f"download from the Materials Project failed: {error}") from error
    return _write(Path(path), ({name: _field(document, name) for name in wanted} for document in documents))


def fetch_jarvis(path: str | Path, *, name: str = "dft_3d", cache: str | Path | None = None) -> Path:
    """Download a JARVIS data set with jarvis-tools to a JSON file (.json or .json.gz) for `open_dataset`.

    Args:
        path: file to write; it appears only when the download is complete
        name: name of the data set in jarvis-tools: dft_3d, dft_2d, ...
        cache: folder in which jarvis-tools keeps its archives; None: its own choice

    Raises:
        ImportError: jarvis-tools is not installed.
        ConnectionError: the download failed.
    """
    figshare = _load("jarvis.db.figshare", "jarvis-tools")
    try:
        entries = figshare.data(name, **({} if cache is None else {"store_dir": str(cache)}))
    except Exception as error:  # requests, zipfile, a name that is unknown
        raise ConnectionError(f"download of JARVIS {name} failed: {error}") from error
    return _write(Path(path), entries)


def _load(module: str, package: str) -> Any:
    """Import an optional package, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this download needs the package {package}: pip install {package} ({error})") from error


def _pymatgen_key() -> str | None:
    """The key in pymatgen's settings (environment or ~/.config/.pmgrc.yaml)."""
    try:
        settings = importlib.import_module("pymatgen.core").SETTINGS
    except (ImportError, AttributeError):
        return None
    return settings.get("PMG_MAPI_KEY")


def _field(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else getattr(document, name, None)


def _write(path: Path, entries: Iterable[Any]) -> Path:
    """Write a JSON array, one element a line, to a temporary file that then takes the place of `path`."""
    partial = path.with_name(f"{path.name}.partial")
    with (gzip.open if path.suffix == ".gz" else open)(partial, "wt", encoding="utf-8") as file:
        file.write("[")
        for i, entry in enumerate(entries):
            file.write(("\n" if i == 0 else ",\n") + json.dumps(entry, default=_plain))
        file.write("\n]\n")
    partial.replace(path)
    return path


def _plain(value: Any) -> Any:
    """JSON for the objects of pymatgen and pydantic: their own dict, else text."""
    for method in ("as_dict", "model_dump", "tolist"):
        if hasattr(value, method):
            return getattr(value, method)()
    return getattr(value, "value", None) or str(value)
