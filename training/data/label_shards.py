"""Folders of labelled frames, as `ase_potnet.training.labelling` writes them: shards of frames and a journal.

    OUT/shards/shard_00000.npz   some hundred frames each, written whole and never changed
    OUT/journal.jsonl            frames finished since the last shard, a line each; the last line may be cut off
    OUT/provenance.json          calculator, recipe, seed, input, versions

A shard holds, for each of n frames, material_id (the structure it was made from), kind, frame (number of the frame of
that structure), seed, index (row of the structure in the input), natoms, cell (n, 3, 3) Å, pbc (n, 3), energy (n,)
eV, stress (n, 3, 3) eV/Å^3, +(1/V) dE/dε, NaN where there is none, group; for all atoms of all frames one after the
other numbers, positions Å and forces eV/Å, (n_atoms, 3); and for each failed frame failed_material_id,
failed_kind, failed_frame, failed_seed, failed_index and failed_reason. Shards without frame (but ps), pbc (periodic),
group (the material_id) and failed_* are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ase_potnet.readers.entry import Entry, refuse
from ase_potnet.readers.files import Progress, read_npz, track

from .collect import collect
from .dataset import Dataset

JOURNAL = "journal.jsonl"
PROVENANCE = "provenance.json"
SHARDS = "shards"
SHARD_PATTERN = "shard_*.npz"
FAILED = "failed_"
KEYS = ("material_id", "kind", "seed", "index", "natoms", "cell", "energy", "stress", "numbers", "positions", "forces")
_DROPPED = "dropped: force above the limit, or not finite"  # the one reason of shards without failed_reason


@dataclass(frozen=True)
class Frame:
    """A labelled structure.

    Attributes:
        material_id: id of the structure that it was made from
        group: frames of one group belong in one part of a split
        kind: name of the perturbation
        frame: number of the frame of that structure
        seed: of the random numbers that made it
        index: row of the structure in the input
        numbers: (n_atoms,)
        positions: (n_atoms, 3) Å
        cell: (3, 3) Å
        pbc: (3,) bool
        energy: eV
        forces: (n_atoms, 3) eV/Å
        stress: (3, 3) eV/Å^3, +(1/V) dE/dε, or None
    """

    material_id: str
    group: str
    kind: str
    frame: int
    seed: int
    index: int
    numbers: NDArray[np.integer]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None

    def atoms(self) -> Atoms:
        """The structure, with its labels in `atoms.calc`."""
        info = {"material_id": self.material_id, "kind": self.kind}
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, info=info)
        results = {"energy": self.energy, "forces": np.asarray(self.forces, np.float64)}
        if self.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(self.stress, np.float64))
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


@dataclass(frozen=True)
class Failure:
    """A frame that has no labels, and why. The other attributes are those of `Frame`."""

    material_id: str
    kind: str
    frame: int
    seed: int
    index: int
    reason: str


Result = Frame | Failure


def frame_id(result: Result) -> str:
    """Name of a frame, unique in its folder: structure/kind/number."""
    return f"{result.material_id}/{result.kind}/{result.frame}"


def read_label_shards(
    path: str | Path,
    *,
    targets: Iterable[str] | str | None = None,
    limit: int | None = None,
    progress: Progress = True,
) -> Dataset:
    """The labelled frames of a folder of shards, of a finished run or not, or of one shard.

    Energy, forces and stress are in `atoms.calc` (see `labels`), the kind of the frame in `atoms.info`; the group is
    the structure that a frame was made from (or that structure's own group). Failed frames and damaged shards
    are broken entries.

    Args:
        path, targets, limit, progress: see `open_dataset`
    """
    return collect(_entries(Path(path), progress), targets=targets, limit=limit, source=path)


def _entries(path: Path, progress: Progress) -> Generator[Entry, None, None]:
    shards = shard_paths(path) if path.is_dir() else [path]
    seen: set[tuple[str, int]] = set()
    for shard in track(shards, path.name, total=len(shards), progress=progress):
        try:
            results = read_shard(shard)
        except (ValueError, OSError) as error:
            yield Entry(shard.stem, {}, partial(refuse, str(error)))
            continue
        seen.update((result.material_id, result.frame) for result in results)
        yield from map(_entry, results)
    if path.is_dir():
        for result in read_journal(path / JOURNAL):
            if (result.material_id, result.frame) not in seen:  # else a shard holds it already
                yield _entry(result)


def _entry(result: Result) -> Entry:
    if isinstance(result, Frame):
        return Entry(frame_id(result), {}, result.atoms, result.group)
    return Entry(frame_id(result), {}, partial(refuse, result.reason))


def is_label_folder(folder: Path) -> bool:
    """Whether a folder holds labelled frames."""
    return (folder / JOURNAL).is_file() or bool(shard_paths(folder))


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder, or of its subfolder "shards", sorted by name."""
    return sorted(folder.glob(f"{SHARDS}/{SHARD_PATTERN}")) or sorted(folder.glob(SHARD_PATTERN))


def read_shard(path: Path) -> list[Result]:
    """The frames, then the failures of a shard. Raises ValueError, naming the file, if it is damaged."""
    arrays = read_npz(path, KEYS)
    n, n_atoms = len(arrays["natoms"]), int(arrays["natoms"].sum(dtype=np.int64))
    number = arrays.get("frame", arrays.get("ps", np.zeros(0)))
    pbc = arrays.get("pbc", np.ones((n, 3), dtype=bool))
    group = arrays.get("group", arrays["material_id"])
    per_frame = [*(arrays[key] for key in KEYS[:8]), number, pbc, group]
    per_atom = [arrays[key] for key in KEYS[8:]]
    if any(len(array) != n for array in per_frame) or any(len(array) != n_atoms for array in per_atom):
        raise ValueError(f"{path}: damaged, its arrays do not fit {n} frames of {n_atoms} atoms")
    ends = np.cumsum(arrays["natoms"], dtype=np.int64)
    results: list[Result] = []
    for i in range(n):
        part = slice(int(ends[i]) - int(arrays["natoms"][i]), int(ends[i]))
        stress = arrays["stress"][i]
        frame = Frame(
            material_id=str(arrays["material_id"][i]),
            group=str(group[i]),
            kind=str(arrays["kind"][i]),
            frame=int(number[i]),
            seed=int(arrays["seed"][i]),
            index=int(arrays["index"][i]),
            numbers=arrays["numbers"][part],
            positions=arrays["positions"][part],
            cell=arrays["cell"][i],
            pbc=pbc[i],
            energy=float(arrays["energy"][i]),
            forces=arrays["forces"][part],
            stress=None if np.isnan(stress).all() else stress,
        )
        results.append(frame)
    return results + _failures(arrays)


def _failures(arrays: dict[str, NDArray[Any]]) -> list[Result]:
    if "dropped_index" in arrays:
        rows = zip(arrays["dropped_index"].tolist(), arrays["dropped_ps"].tolist(), strict=True)
        return [Failure(f"row-{index}", "dropped", frame, 0, index, _DROPPED) for index, frame in rows]
    names = list(Failure.__dataclass_fields__)
    columns = [arrays[FAILED + name].tolist() for name in names if FAILED + name in arrays]
    if len(columns) != len(names):
        return []
    return [Failure(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def pack(results: Sequence[Result]) -> dict[str, NDArray[Any]]:
    """The arrays of a shard of these frames and failures."""
    frames = [result for result in results if isinstance(result, Frame)]
    failures = [result for result in results if isinstance(result, Failure)]
    no_stress = np.full((3, 3), np.nan)
    arrays: dict[str, NDArray[Any]] = {
        "material_id": np.array([frame.material_id for frame in frames], dtype=np.str_),
        "group": np.array([frame.group for frame in frames], dtype=np.str_),
        "kind": np.array([frame.kind for frame in frames], dtype=np.str_),
        "frame": np.array([frame.frame for frame in frames], dtype=np.int64),
        "seed": np.array([frame.seed for frame in frames], dtype=np.int64),
        "index": np.array([frame.index for frame in frames], dtype=np.int64),
        "natoms": np.array([len(frame.numbers) for frame in frames], dtype=np.int32),
        "numbers": np.concatenate([np.zeros(0, np.uint8), *(frame.numbers for frame in frames)]).astype(np.uint8),
        "positions": np.concatenate([np.zeros((0, 3)), *(frame.positions for frame in frames)]),
        "forces": np.concatenate([np.zeros((0, 3)), *(frame.forces for frame in frames)]),
        "cell": np.array([frame.cell for frame in frames], dtype=np.float64).reshape(-1, 3, 3),
        "pbc": np.array([frame.pbc for frame in frames], dtype=bool).reshape(-1, 3),
        "energy": np.array([frame.energy for frame in frames], dtype=np.float64),
        "stress": np.array([no_stress if frame.stress is None else frame.stress for frame in frames]).reshape(-1, 3, 3),
    }
    for name in Failure.__dataclass_fields__:
        kind = np.str_ if name in ("material_id", "kind", "reason") else np.int64
        arrays[FAILED + name] = np.array([getattr(failure, name) for failure in failures], dtype=kind)
    return arrays


def to_line(result: Result) -> str:
    """A line of the journal; numbers keep every bit."""
    fields = asdict(result)
    return json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()}) + "\n"


def from_line(line: str) -> Result:
    """The frame or failure of a journal's line. Raises ValueError for anything else."""
    try:
        fields = json.loads(line)
        if "reason" in fields:
            return Failure(**fields)
        for name, kind in (("numbers", np.int64), ("pbc", np.bool_)):
            fields[name] = np.array(fields[name], dtype=kind)
        for name in ("positions", "cell", "forces"):
            fields[name] = np.array(fields[name], dtype=np.float64).reshape(-1, 3)
        if fields["stress"] is not None:
            fields["stress"] = np.array(fields["stress"], dtype=np.float64).reshape(3, 3)
        return Frame(**fields)
    except (TypeError, KeyError) as error:
        raise ValueError(f"no labelled frame: {error}") from error


def read_journal(path: Path) -> Iterator[Result]:
    """The results of a journal. A last line that was cut off is left out.

    Raises:
        ValueError: a line before the last is damaged.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield from_line(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is damaged: {error}") from error
