"""Properties of many structures from a trained model, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from ase_potnet.graph import AtomsBatch, Structure, batch_for_prediction, local_edges
from ase_potnet.graph.atoms_batch import as_many
from ase_potnet.graph.distances import CLOSEST, refuse_overlaps
from ase_potnet.pretrained import ModelInfo, list_models, load_model, model_info
from ase_potnet.pretrained.format import pick_device, read_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_STRUCTURES = 128  # of an automatic batch
MOST_ATOMS = 1024
MOST_PAIRS = 60_000  # Σ N²


class StructureError(ValueError):
    """A structure that cannot be predicted: its number, from 0, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"structures[{index}]: {reason}")
        self.index, self.reason = index, reason

    def __reduce__(self) -> tuple[type[StructureError], tuple[int, str]]:  # to another process
        return StructureError, (self.index, self.reason)


def predict(
    structures: Structure | Iterable[Structure],
    property: str = "formation_energy_per_atom",  # noqa: A002
    model: str | Path | None = None,
    *,
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    dtype: torch.dtype | str | None = None,
) -> Iterator[float]:
    """A property of every structure, in their order, in the unit of the model's target.

    Structures are read as values are taken, a batch at a time, so that a generator of any length will do.

    Args:
        structures: one or many ASE ``Atoms``, pymatgen ``Structure``, or tuples (numbers, positions, cell, pbc).
        property: name of a target of the model.
        model: packaged model or model folder; None: the packaged model for this property.
        batch_size: structures of a batch; "auto": by their sizes.
        device: "auto": a GPU if there is one.
        dtype: of the calculation, by name or as torch's; None: that of the weights.

    Raises:
        ValueError: no such model or property, at once; a structure that cannot be read, with its number, when its
            batch is due.
    """
    info = model_for(property) if model is None else model_info(model)
    column = target_column(info, property)
    check_batch_size(batch_size)
    place = pick_device(device)
    network = _loaded(info.folder, info.sha256, place, None if dtype is None else read_dtype(dtype))
    values = predict_batches(network, structures, batch_size=batch_size, device=place)
    return (float(value) for batch in values for value in batch[:, column])


@lru_cache(maxsize=4)
def _loaded(folder: Path, sha256: str, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """The network of a model folder, kept, as loading takes longer than a prediction. sha256: tells versions apart."""
    return load_model(folder, device=device, dtype=dtype)


def predict_batches(
    network: nn.Module,
    structures: Structure | Iterable[Structure],
    *,
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "cpu",
) -> Iterator[NDArray[Any]]:
    """All targets of a property model for batch after batch, (B, n_targets) each."""
    dtype = next(parameter.dtype for parameter in network.parameters())
    first = 0
    for chunk in chunks(structures, batch_size):
        try:
            atoms = checked_batch(chunk, dtype, device)
            with torch.no_grad():
                values = network(atoms)
        except ValueError:
            blame(network, chunk, first, dtype, device)
            raise
        yield values.cpu().numpy()
        first += len(chunk)


def model_for(property: str) -> ModelInfo:  # noqa: A002
    """The packaged model for a property.

    Raises:
        ValueError: there is none, with the properties that there are.
    """
    infos = [model_info(name) for name in list_models()]
    offered = {target.name: info for info in infos if info.task == "property" for target in info.targets}
    if property in offered:
        return offered[property]
    near = get_close_matches(property, offered, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    there = f"There are models for {', '.join(offered)}." if offered else "This version has none for any property."
    raise ValueError(f"property: no packaged model for {property!r}{hint} {there} Pass model= for one of your own.")


def target_column(info: ModelInfo, property: str) -> int:  # noqa: A002
    """Which output of a model a property is. Raises ValueError with the names that there are."""
    if info.task != "property":
        raise ValueError(
            f"model: {info.name} is an interatomic potential; for energies use PotNetCalculator, ase_potnet.evaluate() "
            "or `potnet screen --do energy`"
        )
    names = [target.name for target in info.targets]
    if property not in names:
        raise ValueError(f"property: the model {info.name} predicts {', '.join(names)}, got {property!r}")
    return names.index(property)


def check_batch_size(batch_size: int | Literal["auto"]) -> None:
    """Raises ValueError for anything but a positive integer or "auto"."""
    if batch_size != "auto" and (not isinstance(batch_size, (int, np.integer)) or batch_size < 1):
        raise ValueError(f"batch_size: wanted a positive integer or 'auto', got {batch_size!r}")


def chunks(structures: Structure | Iterable[Structure], batch_size: int | Literal["auto"]) -> Iterator[list[Structure]]:
    """Consecutive structures that are predicted together."""
    chunk: list[Structure] = []
    atoms = pairs = 0
    for structure in as_many(structures):
        size = _size(structure)
        full = len(chunk) >= (MOST_STRUCTURES if batch_size == "auto" else batch_size)
        if batch_size == "auto":
            full = full or atoms + size > MOST_ATOMS or pairs + size * size > MOST_PAIRS
        if chunk and full:
            yield chunk
            chunk, atoms, pairs = [], 0, 0
        chunk.append(structure)
        atoms, pairs = atoms + size, pairs + size * size
    if chunk:
        yield chunk


def _size(structure: Any) -> int:
    try:
        return len(structure[0]) if isinstance(structure, tuple) else len(structure)
    except TypeError:
        return 1  # of another type, which the batch refuses


def checked_batch(chunk: Sequence[Any], dtype: torch.dtype, device: torch.device | str) -> AtomsBatch:
    """The structures as one batch. Raises ValueError where atoms nearly coincide."""
    atoms = batch_for_prediction(chunk, dtype, device)
    edges = local_edges(atoms, CLOSEST)
    refuse_overlaps(edges.vectors(atoms), atoms.numbers, edges)
    return atoms


def blame(network: nn.Module, chunk: Sequence[Any], first: int, dtype: torch.dtype, device: torch.device | str) -> None:
    """Raise the error of the first structure that cannot be predicted, with its number."""
    for place, structure in enumerate(chunk):
        try:
            with torch.no_grad():
                network(checked_batch([structure], dtype, device))
        except ValueError as error:
            raise StructureError(first + place, str(error).removeprefix("structures[0]").lstrip(": ")) from error
