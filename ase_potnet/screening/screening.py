"""``screen``: tasks on any number of crystals, as a lazy generator of records."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from ase_potnet.pretrained import model_info
from ase_potnet.pretrained.format import DTYPES, pick_device
from ase_potnet.progress import show
from ase_potnet.readers.files import Progress
from ase_potnet.screening.duplicates import Duplicates
from ase_potnet.screening.pipeline import Evaluators, run_tasks, unreadable
from ase_potnet.screening.sources import Candidate, candidates, count
from ase_potnet.screening.store import DONE, DUPLICATE, FAILED, Record, Store
from ase_potnet.screening.tasks import Task, make_tasks, settings_of

_LOOKED_UP = 200  # keys at once


@dataclass
class Summary:
    """Counts of a run: ``found`` is always the sum of ``before``, ``done``, ``failed`` and ``duplicates``, once it has
    ended.

    found: entries of the sources
    before: of these, records of earlier runs
    done, failed, duplicates: records of this run
    reasons: of the failures
    """

    found: int = 0
    before: int = 0
    done: int = 0
    failed: int = 0
    duplicates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count a record of this run."""
        self.done += record.status == DONE
        self.duplicates += record.status == DUPLICATE
        if record.status == FAILED:
            self.failed += 1
            self.reasons[record.reason] += 1

    @property
    def finished(self) -> int:
        """Entries that need nothing more."""
        return self.before + self.done + self.failed + self.duplicates

    def __str__(self) -> str:
        lines = [f"{self.found:,} crystals: {self.done:,} done, {self.failed:,} failed"]
        if self.duplicates:
            lines[0] += f", {self.duplicates:,} duplicates"
        if self.before:
            lines[0] += f", {self.before:,} by earlier runs"
        lines += [f"  {number:,} {reason}" for reason, number in self.reasons.most_common()]
        return "\n".join(lines)


class Screening(Iterator[Record]):
    """The records of a run, as they come. ``summary`` counts them; ``close`` ends early, what is finished is kept."""

    def __init__(self, sources: Any, plan: Plan, out: str | Path | None, total: int | None, progress: Progress) -> None:
        self.summary = Summary()
        self._stack = ExitStack()
        try:
            self.store = None if out is None else self._stack.enter_context(Store(out, plan.settings))
            self._report = self._stack.enter_context(show(total, 0, progress, what="screening", unit="crystals"))
        except BaseException:
            self._stack.close()
            raise
        self._plan = plan
        self._records = self._run(sources)

    def __next__(self) -> Record:
        try:
            return next(self._records)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End now."""
        self._records.close()
        self._stack.close()

    def __del__(self) -> None:
        """A loop that was left early: what is finished is kept."""
        with contextlib.suppress(AttributeError):  # not yet made
            self._stack.close()

    def __enter__(self) -> Screening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, sources: Any) -> Generator[Record, None, None]:
        aside: list[Record] = []  # records that need no evaluation
        new = self._new(candidates(sources), aside)
        plan = self._plan
        for record in run_tasks(
            new, plan.tasks, plan.evaluators, device=plan.device, time_limit=plan.time_limit, started=plan.started
        ):
            yield from self._kept(aside)
            if record is not None:
                yield from self._kept([record])
            elif self.store is not None:
                self.store.flush_if_due()
        yield from self._kept(aside)

    def _kept(self, some: list[Record]) -> Iterator[Record]:
        while some:
            record = some.pop(0)
            self.summary.add(record)
            if self.store is not None:
                self.store.add(record)
            self._report(self.summary.finished, self.summary.failed)
            yield record

    def _new(self, every: Iterator[Candidate], aside: list[Record]) -> Iterator[Candidate]:
        """Candidates that have a structure and no record yet; records of the others."""
        duplicates = Duplicates(self._plan.unique) if self._plan.unique else None
        for candidate, known in looked_up(every, self.store, self.summary):
            other = duplicates.other(candidate) if duplicates and candidate.atoms is not None else None
            if known:
                continue
            if candidate.atoms is None:
                aside.append(unreadable(candidate))
            elif other is not None:
                aside.append(
                    Record(
                        candidate.key, candidate.id, candidate.source, DUPLICATE, message=other,
                        formula=candidate.atoms.get_chemical_formula(mode="metal"), n_atoms=len(candidate.atoms),
                    )
                )  # fmt: skip
            else:
                yield candidate


def looked_up(every: Iterator[Candidate], store: Store | None, summary: Summary) -> Iterator[tuple[Candidate, bool]]:
    """The candidates, counted, and whether each has a record of an earlier run."""
    while some := list(itertools.islice(every, _LOOKED_UP)):
        known = set() if store is None else store.known(candidate.key for candidate in some)
        for candidate in some:
            summary.found += 1
            summary.before += candidate.key in known
            yield candidate, candidate.key in known


@dataclass
class Plan:
    """What is done to every crystal, and by what."""

    tasks: Sequence[Task]
    evaluators: Evaluators
    settings: dict[str, Any]
    device: str
    unique: str | None
    time_limit: float | None
    started: Any = None


def make_plan(
    tasks: str | Task | Sequence[str | Task],
    model: str | Path | nn.Module,
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "float32",
    unique: str | None = None,
    time_limit: float | None = None,
) -> Plan:
    """Check the arguments of ``screen``. Raises ValueError naming one."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype: wanted 'float64' or 'float32', got {dtype!r}")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit: wanted seconds or None, got {time_limit!r}")
    if unique not in (None, "exact", "structure"):
        raise ValueError(f"unique: wanted None, 'exact' or 'structure', got {unique!r}")
    if unique == "structure":
        import_module("pymatgen.analysis.structure_matcher")  # missed before the first crystal
    pick_device(device)
    made = make_tasks(tasks, options)
    settings = {
        "tasks": [settings_of(task) for task in made],
        "model": _identity(model, made),
        "dtype": dtype,
        "unique": unique,
        "version": version("ase-potnet"),
    }
    own = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    return Plan(made, Evaluators(own, device, dtype), settings, device, unique, time_limit)


def _identity(model: str | Path | nn.Module, tasks: Sequence[Task]) -> str:
    """Hash of the weights; of a loaded model, its class as well."""
    if isinstance(model, nn.Module):
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return f"{type(model).__name__} {digest.hexdigest()}"
    if all(task.name == "property" for task in tasks):
        return "none"
    info = model_info(model)
    if info.task != "energy":
        raise ValueError(f"model: {info.name} predicts {', '.join(t.name for t in info.targets)}, not energies")
    return info.sha256


def screen(
    sources: Any,
    tasks: str | Task | Sequence[str | Task] = ("relax", "energy"),
    out: str | Path | None = None,
    *,
    model: str | Path | nn.Module = "default",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "float32",
    unique: str | None = None,
    time_limit: float | None = 600.0,
    progress: Progress = False,
) -> Screening:
    """Do tasks to any number of crystals, many at once; records come as crystals finish.

    Args:
        sources: files of any kind, folders, patterns, ASE Atoms, pymatgen Structures, (id, structure); one or an
            iterable of them, generators included.
        tasks: names ("relax", "energy", "property:band_gap", "hull", "eos", "elastic", "phonon-stability", those of
            other packages) or tasks of your own, in their order.
        out: SQLite file to which records are added; the same call goes on after a kill and repeats nothing. None: the
            records are not kept.
        model: packaged name, model folder, or loaded model (which is copied).
        options: of the tasks, such as {"relax.fmax": 0.01, "hull.reference": "elements.db"}.
        device: "auto": a GPU if there is one.
        dtype: "float32", or "float64".
        unique: "exact": equal structures are done once; "structure": those that pymatgen's StructureMatcher takes for
            the same.
        time_limit: seconds for a step of a task; None for no limit.
        progress: True: a bar in a terminal, else a line a minute.

    Raises:
        ValueError: naming the argument, at once; a broken crystal is a record instead.
        OSError: out cannot be written.
    """
    plan = make_plan(tasks, model, options=options, device=device, dtype=dtype, unique=unique, time_limit=time_limit)
    total = count(sources) if progress else None
    return Screening(sources, plan, out, total, progress)
