"""Labelling runs: structures in, perturbed and labelled frames out."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from ase_potnet.progress import show
from ase_potnet.readers.files import Progress
from ase_potnet.readers.structures import atomic_number

from ..data.dataset import BROKEN_SHOWN, Dataset
from ..data.label_shards import PROVENANCE, Failure
from ..data.opening import Spec, open_dataset
from .calculators import parse_spec
from .perturb import frame_seed
from .pool import Pool
from .recipe import Recipe, load_recipe
from .store import SCRATCH, Store
from .worker import Job, Settings

FORMAT = "ase_potnet labels 1"
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


@dataclass(frozen=True)
class Summary:
    """What a labelling folder holds after a run.

    Attributes:
        expected: frames that the whole run has
        labelled, failed: frames finished, by this run and earlier ones
        new: frames finished by this run, failed ones included
        seconds: that this run took
        reasons: number of failures by reason, the most frequent first
        unreadable: entries of the source that could not be read, and why
    """

    expected: int
    labelled: int
    failed: int
    new: int
    seconds: float
    reasons: dict[str, int]
    unreadable: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether every frame is finished."""
        return self.labelled + self.failed == self.expected

    def __str__(self) -> str:
        rate = self.new / max(self.seconds, 1e-9)
        done = f"{self.labelled:,} of {self.expected:,} frames labelled, {self.failed:,} failed"
        lines = [f"{done}; {self.new:,} in this run, {rate:.3g} a second"]
        lines += [f"  {count:,} × {reason}" for reason, count in list(self.reasons.items())[:5]]
        if self.unreadable:
            lines.append(f"  {len(self.unreadable):,} entries of the source could not be read:")
            lines += [f"    {name}: {reason}" for name, reason in list(self.unreadable.items())[:BROKEN_SHOWN]]
        if not self.complete:
            lines.append("not finished: the same command goes on where this run stopped")
        return "\n".join(lines)


def label(
    source: Spec | Dataset,
    out: str | Path,
    calculator: str,
    *,
    recipe: str | Path | Recipe = "none",
    frames: int | None = None,
    seed: int | None = None,
    elements: Iterable[str] | None = None,
    structures: int | None = None,
    processes: int = 1,
    threads: int = 1,
    limit: str | float | None = None,
    progress: Progress = True,
) -> Summary:
    """Label structures, or frames made from them, with the energy, forces and stress of a calculator.

    Energy is the calculator's "energy" in eV; stress, +(1/V) dE/dε in eV/Å^3, is there for structures that are periodic
    in all directions. `open_dataset(out)` reads the frames. A run that was stopped or killed goes on when it is called
    again with the same arguments; finished frames, failed ones too, are not repeated. The frames do not depend on
    order, processes or interruptions.

    Worker processes import the calling script: start it under `if __name__ == "__main__":`.

    Args:
        source: anything that `open_dataset` reads, or a data set
        out: folder to write to
        calculator: `module:factory[,key=value,...]` or `module:factory,{json}`; see `parse_spec`
        recipe: none (structures as they are), default, phonon, displaced, a YAML file, or a `Recipe`
        frames, seed: in place of the recipe's own
        elements: only structures of these elements; None takes all
        structures: take at most this many structures
        processes: number of processes, each with a calculator of its own
        threads: of each process
        limit: stop after this time: seconds, or "90s", "30m", "2h", "1d"; frames under way are finished first
        progress: see `open_dataset`; a line a minute where stderr is no terminal

    Raises:
        ValueError: an argument is wrong, the calculator cannot be made, `out` holds other labels or a damaged
            shard, or another run is writing there.
    """
    start = time.monotonic()
    deadline = None if limit is None else start + duration(limit)
    for name, value in (("processes", processes), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{name}: wanted at least 1, got {value}")
    out = Path(out)
    chosen = load_recipe(recipe, frames=frames, seed=seed)
    settings = Settings(parse_spec(calculator), chosen, out / SCRATCH)
    most = structures if elements is None else None  # else the first ones of these elements, wherever they are
    dataset = source if isinstance(source, Dataset) else open_dataset(source, limit=most, progress=progress)
    dataset = select(dataset, elements, structures)
    with Pool(settings, processes, threads) as pool, _stop_on_signals() as stop:
        origin = "a data set" if isinstance(source, Dataset) else str(source)
        with Store(out, provenance(pool.calculator, chosen, dataset, origin)) as store:
            numbers = frame_numbers(dataset, chosen)
            expected = sum(map(len, numbers))
            before = len(store.done)
            run = {"started": _now(), "processes": processes, "software": software()}
            store.provenance["runs"].append(run)
            store.write_provenance()

            def stopped() -> bool:
                return stop.is_set() or (deadline is not None and time.monotonic() >= deadline)

            with show(expected, before, progress) as report:
                for result in pool.run(jobs(dataset, chosen, numbers, store.done), stopped):
                    hit = isinstance(result, Failure) and stop.is_set()  # perhaps by the signal: for the next run
                    if result is not None and not hit:
                        store.add(result)
                    report(len(store.done), store.failed)
            store.flush()
            seconds = time.monotonic() - start
            reasons = dict(store.reasons.most_common())
            new, unreadable = len(store.done) - before, dict(dataset.broken)
            summary = Summary(expected, store.labelled, store.failed, new, seconds, reasons, unreadable)
            _finish(store, run, summary)
            return summary


def export_extxyz(out: str | Path, path: str | Path) -> Path:
    """Write the labelled frames of a folder to one extended XYZ file, and their provenance to a file beside it.

    Args:
        out: folder of a labelling run
        path: the file; .gz, .bz2 or .xz at the end compresses. The provenance is in `path`.provenance.json.
    """
    written = open_dataset(out, kind="labels", progress=False).to_extxyz(path)
    text = (Path(out) / PROVENANCE).read_text(encoding="utf-8")
    written.with_name(f"{written.name}.provenance.json").write_text(text, encoding="utf-8")
    return written


def select(dataset: Dataset, elements: Iterable[str] | None, structures: int | None) -> Dataset:
    """The first structures of the elements."""
    if structures is not None and structures < 1:
        raise ValueError(f"structures: wanted at least 1 or None, got {structures}")
    allowed = None if elements is None else {atomic_number(symbol) for symbol in elements}
    records = [record for record in dataset if allowed is None or allowed.issuperset(record.atoms.numbers.tolist())]
    if not records:
        raise ValueError(f"elements: none of {len(dataset)} structures has only these elements")
    return Dataset(records[:structures], broken=dataset.broken)


def frame_numbers(dataset: Dataset, recipe: Recipe) -> list[range]:
    """Numbers of the frames of every structure; one that is too large has one frame, which fails."""
    return [range(recipe.frames if len(r.atoms) <= recipe.limits.max_atoms else 1) for r in dataset]


def jobs(dataset: Dataset, recipe: Recipe, numbers: list[range], done: set[tuple[str, int]]) -> Iterator[Job]:
    """The frames that are not done: frame 0 of all structures, shuffled, then frame 1, and so on.

    A run that is stopped early has thus seen as many structures as it could, and a fair sample of them.
    """
    for frame in range(max(map(len, numbers))):
        left = [i for i, r in enumerate(dataset) if frame in numbers[i] and (r.id, frame) not in done]
        for i in sorted(left, key=lambda i: frame_seed(recipe.seed, dataset[i].id, frame)):
            record = dataset[i]
            atoms = record.atoms.copy()  # without its calculator
            yield Job(record.id, record.id if record.group is None else record.group, i, frame, atoms)


def provenance(calculator: dict[str, Any], recipe: Recipe, dataset: Dataset, path: str) -> dict[str, Any]:
    """What is written down about a run, JSON-able."""
    return {
        "format": FORMAT,
        "calculator": calculator,
        "recipe": recipe.model_dump(mode="json"),
        "input": {"path": path, "structures": len(dataset), "sha256": fingerprint(dataset)},
        "units": {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å^3, +(1/V) dE/dstrain"},
        "created": _now(),
        "runs": [],
    }


def fingerprint(dataset: Dataset) -> str:
    """A checksum of all structures and ids, in order."""
    digest = hashlib.sha256()
    for record in dataset:
        atoms = record.atoms
        digest.update(f"{record.id}\0{record.group}\0{len(atoms)}\0".encode())
        arrays = [atoms.numbers.astype("<i8"), atoms.positions.astype("<f8"), atoms.cell.array.astype("<f8"), atoms.pbc]
        initial = filter(atoms.has, ("initial_magmoms", "initial_charges"))
        arrays += [atoms.arrays[name].astype("<f8") for name in initial]
        for array in arrays:
            digest.update(array.tobytes())
    return digest.hexdigest()


def software() -> dict[str, str]:
    """Versions of what makes the frames."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("ase-potnet", "ase", "numpy")}


def _finish(store: Store, run: dict[str, Any], summary: Summary) -> None:
    run |= {"ended": _now(), "finished_frames": summary.new, "complete": summary.complete}  # a killed run has none
    store.provenance["frames"] = {
        "expected": summary.expected,
        "labelled": summary.labelled,
        "failed": summary.failed,
        "failures": dict(list(summary.reasons.items())[:20]),
        "unreadable": dict(list(summary.unreadable.items())[:20]),
    }
    store.write_provenance()


def duration(text: str | float) -> float:
    """Seconds of a time such as 90, "90s", "30m", "2h" or "1.5d". Raises ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-z]*)\s*", str(text))
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise ValueError(f"limit: wanted a time such as 90s, 30m, 2h or 1d, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second SIGINT interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
