"""A trained model against labelled data: errors, predictions and parity pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_potnet.pretrained import ModelInfo, Target, load_model, model_info
from ase_potnet.pretrained.format import pick_device
from ase_potnet.readers.files import track

from .arrays import StructureArrays
from .data import Dataset, Split, open_dataset
from .data.dataset import relabelled
from .evaluation import known_structures, model_dtype, predict_arrays, predict_energies, predict_properties
from .free_atoms import free_atoms
from .metrics import UNITS, Metrics, energy_metrics, errors_by_element, fit_element_shifts, property_metrics
from .pictures import element_picture
from .reporting import draw_parity, write_predictions
from .sources import to_arrays


@dataclass(frozen=True)
class Assessment:
    """Errors of a model on a data set.

    metrics: by quantity
    units: of MAE, RMSE and largest error, by quantity
    by_element: of an energy model, errors of forces and energies by chemical symbol
    n_structures: that were predicted
    notes: what was left out, or fitted
    files: that were written
    """

    metrics: Metrics
    units: Mapping[str, str]
    by_element: Metrics
    n_structures: int
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def assess(
    model: str | Path,
    data: Any,
    *,
    output: str | Path | None = None,
    fields: Mapping[str, str] | None = None,
    kind: str = "auto",
    split: str | Path | None = None,
    part: str | None = None,
    limit: int | None = None,
    fit_shifts: bool = False,
    device: torch.device | str = "auto",
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Assessment:
    """Predict every structure of a data set and compare with its labels.

    Structures without labels, or with elements that the model does not know, are left out with a note.

    Args:
        model: packaged model or model folder.
        data, kind: as for `open_dataset`.
        limit: take at most this many structures (of each source of a list); with a split, of the part.
        output: folder for metrics.json, CSV files id,target,prediction, parity.png (by kind of frame) and, of an energy
            model, elements.png; None writes nothing.
        fields: target of the model (energy, forces, stress of a potential) to its name in the data, where that is
            neither the name in the training data nor the target's own.
        split, part: take only the ids of one part ("train", "val", "test"; None: "test") of this split file.
        fit_shifts: of an energy model: first shift its energies by one value per element, fitted to these data, to
            compare levels of theory with different references.

    Raises:
        ValueError: naming what is wrong with model or data.
    """
    info = model_info(model)
    if info.task != "property" and (other := set(fields or {}) - {"energy", "forces", "stress"}):
        raise ValueError(f"fields (--target): {info.name} predicts energy, forces and stress, not {', '.join(other)}")
    if info.task == "property" and fit_shifts:
        raise ValueError(f"fit_shifts: only of energies, and {info.name} predicts properties")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: wanted at least 1 or None, got {limit}")
    if split is None and part is not None:
        raise ValueError(f"part: {part!r} of what? Pass the split file as split")
    most = limit if split is None else None
    dataset, targets, notes = _open(info, data, fields or {}, kind, most, progress)
    if split is not None:
        dataset = _part(dataset, split, part or "test")[:limit]
    arrays = to_arrays(dataset, targets)
    if arrays is None:
        raise ValueError(f"data: no structure of {data} has a label to compare with")
    if len(arrays) < len(dataset):
        notes.append(f"{len(dataset) - len(arrays):,} structures without labels left out")
    place = pick_device(device)
    network = load_model(info.folder, device=place, dtype=dtype)
    n_labelled = len(arrays)
    arrays, unknown = known_structures(arrays, network)
    if arrays is None:
        raise ValueError(f"data: every structure of {data} has elements the model does not know ({', '.join(unknown)})")
    if unknown:
        n_left = n_labelled - len(arrays)
        notes.append(f"{n_left:,} structures left out: elements the model does not know ({', '.join(unknown)})")
    predictions = _predict(info, network, arrays, place, progress)
    if fit_shifts:
        bound = np.flatnonzero(~free_atoms(arrays))  # a free atom does not share the shift of the crystals
        shifts = fit_element_shifts(predictions["energy"][bound], arrays.take(bound))
        predictions["energy"] = predictions["energy"] + arrays.composition() @ shifts
        notes.append("energies after a shift per element, fitted to these data")
    by_element: Metrics = {}
    if info.task == "property":
        names = [target.name for target in info.targets]
        predictions["targets"] = predictions["targets"][:, [names.index(target.name) for target in targets]]
        metrics = property_metrics(targets, predictions["targets"], arrays.values["targets"])
        units = {target.name: target.unit for target in targets}
    else:
        metrics, by_element = energy_metrics(predictions, arrays), errors_by_element(predictions, arrays)
        units = {name: UNITS[name.partition("/")[0]] for name in metrics}
    files = (
        () if output is None else _write(Path(output), info, targets, predictions, arrays, metrics, by_element, notes)
    )
    return Assessment(metrics, units, by_element, len(arrays), tuple(notes), files)


def _open(
    info: ModelInfo, data: Any, fields: Mapping[str, str], kind: str, limit: int | None, progress: bool
) -> tuple[Dataset, tuple[Target, ...], list[str]]:
    """The data set, the properties in it that the model predicts (of a potential none), and what is to be said."""
    targets = data_targets(info, fields) if info.task == "property" else ()
    dataset = open_dataset(data, targets=None if targets or fields else [], kind=kind, limit=limit, progress=progress)
    notes = [f"{len(dataset.broken):,} entries could not be read"] if dataset.broken else []
    if targets:
        targets, absent = _present(targets, dataset, fields)
        notes += [f"{target.name}: the data have no field {target.source}" for target in absent]
    elif fields:
        dataset = Dataset(relabelled(dataset, fields), broken=dataset.broken)
    return dataset, targets, notes


def data_targets(info: ModelInfo, fields: Mapping[str, str]) -> tuple[Target, ...]:
    """The targets of a model with their names in the data."""
    names = [target.name for target in info.targets]
    for name in fields:
        if name not in names:
            raise ValueError(
                f"fields (--target): the model {info.name} has no target {name!r}; it has {', '.join(names)}"
            )
    return tuple(replace(target, field=fields.get(target.name, target.source)) for target in info.targets)


def _present(
    targets: tuple[Target, ...], dataset: Dataset, fields: Mapping[str, str]
) -> tuple[tuple[Target, ...], list[Target]]:
    """The targets that the data have, and the others. Raises ValueError where one was asked for, or none is there."""
    there = {name for record in dataset for name in record.targets}
    targets = tuple(
        replace(target, field=target.name)
        if target.name in there and target.source not in there and target.name not in fields
        else target
        for target in targets
    )
    absent = [target for target in targets if target.source not in there]
    wanted = absent if len(absent) == len(targets) else [target for target in absent if target.name in fields]
    if wanted:
        raise ValueError(
            f"data: no field {', '.join(f'{target.source} (for {target.name})' for target in wanted)}; "
            f"there are {', '.join(sorted(there)) or 'none with numbers'} "
            f"(--target {wanted[0].name}=FIELD names another)"
        )
    return tuple(target for target in targets if target not in absent), absent


def _part(dataset: Dataset, split: str | Path, part: str) -> Dataset:
    """The records of one part of a split file."""
    if part not in ("train", "val", "test"):
        raise ValueError(f"part: wanted train, val or test, got {part!r}")
    chosen: Dataset = getattr(Split.from_json(Path(split)).apply(dataset, missing="skip"), part)
    if not len(chosen):
        raise ValueError(f"split: none of the {part} ids of {split} is in the data")
    return chosen


def _predict(
    info: ModelInfo, network: torch.nn.Module, arrays: StructureArrays, device: torch.device, progress: bool
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Predictions for all structures, with a progress bar."""
    predict = predict_properties if info.task == "property" else predict_energies
    bar = track(range(len(arrays)), "predicting", total=len(arrays), progress=progress)
    steps = iter(bar)

    def advance(n: int) -> None:
        for _ in range(n):
            next(steps, None)

    result = predict_arrays(predict, network, arrays, dtype=model_dtype(network), device=device, advance=advance)
    next(steps, None)  # closes the bar
    return result


def _write(
    folder: Path,
    info: ModelInfo,
    targets: tuple[Target, ...],
    predictions: dict[str, np.ndarray[Any, np.dtype[np.float64]]],
    arrays: StructureArrays,
    metrics: Metrics,
    by_element: Metrics,
    notes: list[str],
) -> tuple[Path, ...]:
    """Metrics, predictions and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"model": info.name, "sha256": info.sha256, "n_structures": len(arrays), "notes": notes}
    text = json.dumps(summary | {"metrics": metrics, "by_element": by_element}, indent=2)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    tables = write_predictions(folder, "", targets, predictions, arrays)
    draw_parity(folder / "parity.png", targets, predictions, arrays)
    pictures = [folder / "parity.png"]
    if by_element:
        pictures.append(folder / "elements.png")
        element_picture(pictures[-1], by_element)
    return (folder / "metrics.json", *tables, *pictures)
