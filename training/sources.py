"""From the data section of a recipe to the training, validation and test parts as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_potnet.pretrained import Target

from .arrays import REPLAY_KIND, Floats, StructureArrays, structure_arrays, with_labels, with_targets
from .data import Dataset, Split, formula_group, group_split, leaderboard_split, open_dataset, seeded_split
from .data.dataset import relabelled
from .free_atoms import without_free_atoms
from .recipe import DataConfig, Recipe, SplitConfig


@dataclass(frozen=True)
class TrainingData:
    """The parts; test is None where the split leaves none. notes: what was left out, as text."""

    train: StructureArrays
    val: StructureArrays
    test: StructureArrays | None
    notes: tuple[str, ...] = ()
    free_atoms: Floats | None = None  # energies by atomic number, NaN where there are none

    def fingerprint(self) -> str:
        """Hash of all structures and labels."""
        digest = hashlib.sha256()
        for part in filter(None, (self.train, self.val, self.test)):
            digest.update("\n".join(part.ids).encode())
            for array in (part.numbers, part.positions, part.cell, part.pbc, part.first, *part.values.values()):
                digest.update(np.ascontiguousarray(array).tobytes())
        if self.free_atoms is not None:
            digest.update(self.free_atoms.tobytes())
        return digest.hexdigest()


def load_training_data(recipe: Recipe, *, progress: bool = True) -> TrainingData:
    """Read, split and convert the data of a recipe.

    Records without any label that the task learns are left out and counted; of several targets some may be missing.

    Raises:
        ValueError: naming what is wrong in the data section, or a part that would be empty.
    """
    data, targets = recipe.data, [target.target() for target in recipe.data.targets]
    dataset = _read_labelled(data.path, data.kind, data, targets, progress)
    notes = [f"{len(dataset.broken):,} entries could not be read"] if dataset.broken else []
    split = make_split(dataset, data.split, data, targets)
    parts = split.apply(dataset, missing="skip" if data.split.kind == "file" else "error")
    absent = len(split.train) + len(split.val) + len(split.test) - sum(map(len, parts))
    if absent:
        notes.append(f"{absent:,} ids of the split are not in the data")
    if unused := len(dataset) - sum(map(len, parts)):
        notes.append(f"{unused:,} structures are in no part of the split" + (" or have no target" if targets else ""))
    if torn := _torn_groups(parts):
        notes.append(
            f"{torn:,} groups of structures of one origin are in several parts, so that errors come out too small; "
            "data.split.kind=group keeps them together"
        )
    val = parts.val if data.val is None else _read_labelled(data.val, "auto", data, targets, progress)
    sets = {"train": parts.train, "val": val, "test": parts.test}
    arrays = {name: to_arrays(part, targets) for name, part in sets.items()}
    free, n_free = None, 0
    if not targets:
        arrays, free, n_free = without_free_atoms(arrays)
    test, train = arrays["test"], _limited(arrays["train"], data)
    for name, part in (("training", train), ("validation", arrays["val"])):
        if part is None:
            other = _what_there_is(parts.train, targets)
            raise ValueError(f"data: the {name} part has no structure with a label{other}")
    assert train is not None
    assert arrays["val"] is not None
    kinds = {*train.kinds, *arrays["val"].kinds} | ({REPLAY_KIND} if data.replay else set())
    if unknown := sorted(set(recipe.loss.kind_weights) - kinds):
        raise ValueError(
            f"loss.kind_weights: no frame is of the kind {', '.join(unknown)}; the data have {', '.join(sorted(kinds))}"
        )
    if recipe.loss.differences is not None and len(np.unique(train.family)) == len(train):
        notes.append("loss.differences does nothing: no two structures for training have one cell and the same atoms")
    n_lost = sum(map(len, parts)) - len(train) - len(arrays["val"]) - (len(test) if test else 0) - n_free
    if n_lost > 0 and data.val is None:
        notes.append(f"{n_lost:,} structures left out: no label, or beyond max_structures or max_atoms")
    if free is not None and n_free:
        symbols = [chemical_symbols[z] for z in np.flatnonzero(np.isfinite(free))]
        notes.append(f"{n_free:,} free atoms, for their energies alone: {', '.join(symbols)}")
        free[np.setdiff1d(np.arange(len(free)), train.numbers)] = np.nan
        if useless := sorted(set(symbols) - {chemical_symbols[z] for z in np.flatnonzero(np.isfinite(free))}):
            notes.append(f"free atoms left out, no structure for training holds their elements: {', '.join(useless)}")
    if not targets:
        counts = {name: int(train.has(name).sum()) for name in ("energy", "forces", "stress")}
        if min(counts.values()) < len(train):
            text = ", ".join(f"{name} of {count:,}" for name, count in counts.items())
            notes.append(f"labels for training: {text} structures{_what_there_is(parts.train, targets)}")
    return TrainingData(train, arrays["val"], test, tuple(notes), free if n_free else None)


def _torn_groups(parts: Iterable[Dataset]) -> int:
    """Number of groups that are in more than one part."""
    places: dict[str, set[int]] = {}
    for number, part in enumerate(parts):
        for record in part:
            if record.group is not None:
                places.setdefault(record.group, set()).add(number)
    return sum(len(found) > 1 for found in places.values())


def _what_there_is(dataset: Dataset, targets: Sequence[Target]) -> str:
    """Of the first structure: the fields that may hold its labels under another name; "" if there are none."""
    if not len(dataset):
        return ""
    record = dataset[0]
    fields = [name for name in record.atoms.arrays if name not in ("numbers", "positions")]
    fields = sorted({*fields, *record.targets, *record.atoms.info} - {"kind", "material_id"})
    wanted = ", ".join(target.source for target in targets) or "energy, forces and stress"
    return f" (named {wanted}); other fields: {', '.join(fields)}" if fields else ""


def read(path: Any, kind: str, targets: Sequence[Target], *, progress: bool = True) -> Dataset:
    """Open a source; `~` is the home folder."""
    names = [target.source for target in targets]
    return open_dataset(_expand(path), targets=names, kind=kind, progress=progress)


def _read_labelled(path: Any, kind: str, data: DataConfig, targets: Sequence[Target], progress: bool) -> Dataset:
    """The same, with labels under the names of the recipe."""
    if not data.labels:
        return read(path, kind, targets, progress=progress)
    dataset = open_dataset(_expand(path), kind=kind, progress=progress)
    names = {str(label): name for label, name in data.labels.items()}
    try:
        return Dataset(relabelled(dataset, names), broken=dataset.broken)
    except ValueError as error:
        raise ValueError(f"data.{error}{_what_there_is(dataset, ())}") from None


def make_split(dataset: Dataset, config: SplitConfig, data: DataConfig, targets: Sequence[Target]) -> Split:
    """The split that a recipe asks for. Shuffled splits are of the records with a label only."""
    if config.kind == "file":
        return Split.from_json(Path(str(config.path)).expanduser())
    if config.kind == "folder":
        return leaderboard_split(Path(str(data.path)).expanduser())
    names = [target.source for target in targets]
    labelled = dataset.subset(r.id for r in dataset if not names or any(name in r.targets for name in names))
    if not len(labelled):
        raise ValueError(
            f"data.targets: no structure has a number as {', '.join(names)}{_what_there_is(dataset, targets)}"
        )
    fractions = config.fractions
    if data.val is not None:  # what would be the validation part is for training
        fractions = (fractions[0] + fractions[1], 0.0, fractions[2])
    if config.kind == "seeded":
        return seeded_split(labelled, fractions=fractions, seed=config.seed)
    group = formula_group if config.kind == "formula" else None
    return group_split(labelled, fractions=fractions, seed=config.seed, group=group)


def to_arrays(dataset: Dataset, targets: Sequence[Target]) -> StructureArrays | None:
    """The records with labels as arrays: targets if there are any, else energy, forces and stress; None if none has."""
    if not len(dataset):
        return None
    arrays = structure_arrays(dataset)
    if targets:
        arrays = with_targets(arrays, dataset, [target.source for target in targets])
        known = np.isfinite(arrays.values["targets"]).any(axis=1)
    else:
        arrays = with_labels(arrays, dataset)
        known = arrays.has("energy") | arrays.has("forces")
    if not known.any():
        return None
    return arrays if known.all() else arrays.take(np.flatnonzero(known))


def _limited(arrays: StructureArrays | None, data: DataConfig) -> StructureArrays | None:
    """The training part within max_atoms and max_structures."""
    if arrays is None:
        return None
    rows = np.arange(len(arrays))
    if data.max_atoms is not None:
        rows = rows[arrays.n_atoms <= data.max_atoms]
    rows = rows[: data.max_structures]
    if not len(rows):
        return None
    return arrays if len(rows) == len(arrays) else arrays.take(rows)


def _expand(path: Any) -> Any:
    """`~` expanded in a path, or in the paths of a list or mapping."""
    if isinstance(path, str):
        return str(Path(path).expanduser())
    if isinstance(path, list):
        return [_expand(item) for item in path]
    if isinstance(path, dict):
        return {key: _expand(value) if key == "path" else value for key, value in path.items()}
    return path
