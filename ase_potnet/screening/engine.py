"""Many crystals advance together: what their tasks ask for is evaluated in common batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from ase_potnet.evaluation import Result, load_potential, neighbour_cutoff, split_results
from ase_potnet.graph import AtomsBatch, Edges, batch_for_prediction, local_edges
from ase_potnet.graph.distances import CLOSEST
from ase_potnet.models.derivatives import differentiate
from ase_potnet.pretrained.format import pick_device, read_dtype
from ase_potnet.screening.failures import BAD_STRUCTURE, EXPLODED, UNSUPPORTED, ScreeningFailure
from ase_potnet.screening.memory import keep_freed_memory

_ATOMS = {"cpu": 512, "cuda": 8192}  # of a batch; more are no faster
_PAIRS = {"cpu": 60_000, "cuda": 2_000_000}  # Σ N² of a batch: memory of the complete channel


@dataclass(frozen=True)
class Ask:
    """What a task wants to know of some structures.

    structures: ASE Atoms or (numbers, positions, cell, pbc)
    forces, stress: besides energies
    of: "potential", or name of a property
    """

    structures: Sequence[Any]
    forces: bool = True
    stress: bool = True
    of: str = "potential"


Answers = list[Any]  # a Result for each structure, or the value of a property
Steps = Generator[Ask, Answers, Any]


class Evaluator(Protocol):
    """Answers to one kind of question, in batches."""

    def evaluate(self, structures: Sequence[Any], *, forces: bool, stress: bool) -> list[Any]:
        """An answer, or a ScreeningFailure, for each structure."""


@dataclass
class Job:
    """A crystal under way: its steps, and the answers that it waits for."""

    item: Any
    steps: Steps
    answers: Answers = field(default_factory=list)
    missing: int = 0
    size: int = 0
    started: float = 0.0


@dataclass(frozen=True)
class _Question:
    job: Job
    place: int
    structure: Any
    size: int


def advance_all(
    jobs: Iterable[Job],
    evaluators: Callable[[str], Evaluator],
    advance: Callable[[Job, Answers | ScreeningFailure | None], Ask | None],
    *,
    device: str = "cpu",
    most_atoms: int | None = None,
    evaluating: Callable[[list[Any]], None] | None = None,
) -> Iterator[Job | None]:
    """The jobs, each when it has finished; None after every batch in which none has.

    Args:
        jobs: taken as room comes free, so that batches stay full.
        evaluators: by ``Ask.of``.
        advance: makes the next step of a job with the answers to its last question (None at first); returns the next
            question, or None at the end. Must not raise.
        most_atoms: of a batch, one question at least; None: by the device.
        evaluating: called with the items of a batch before it is evaluated, and with none of them afterwards.
    """
    limit = most_atoms or _ATOMS.get(device, _ATOMS["cpu"])
    if device == "cpu":
        keep_freed_memory()
    queues: dict[tuple[str, bool, bool], deque[_Question]] = {}
    atoms_in: dict[tuple[str, bool, bool], int] = {}
    source, exhausted = iter(jobs), False

    def step(job: Job, answers: Answers | ScreeningFailure | None) -> bool:
        """Whether the job has finished."""
        ask = advance(job, answers)
        while ask is not None and not len(ask.structures):
            ask = advance(job, [])
        if ask is None:
            return True
        kind = (ask.of, ask.forces, ask.stress)
        job.answers, job.missing = [None] * len(ask.structures), len(ask.structures)
        for place, structure in enumerate(ask.structures):
            size = len(structure[0]) if isinstance(structure, tuple) else len(structure)
            queues.setdefault(kind, deque()).append(_Question(job, place, structure, size))
            atoms_in[kind] = atoms_in.get(kind, 0) + size
        return False

    while True:
        while not exhausted and sum(atoms_in.values()) < 2 * limit:
            job = next(source, None)
            if job is None:
                exhausted = True
            elif step(job, None):
                yield job
        waiting = [kind for kind, queue in queues.items() if queue]
        if not waiting:
            return
        kind = max(waiting, key=lambda k: atoms_in[k])
        batch = _take(queues[kind], limit, _PAIRS.get(device, _PAIRS["cpu"]))
        atoms_in[kind] -= sum(question.size for question in batch)
        of, forces, stress = kind
        if evaluating is not None:
            evaluating([question.job.item for question in batch])
        answers = evaluators(of).evaluate([q.structure for q in batch], forces=forces, stress=stress)
        if evaluating is not None:
            evaluating([])
        finished = 0
        for question, answer in zip(batch, answers, strict=True):
            job = question.job
            job.answers[question.place] = answer
            job.missing -= 1
            if job.missing == 0:
                failure = next((a for a in job.answers if isinstance(a, ScreeningFailure)), None)
                if step(job, failure if failure is not None else job.answers):
                    finished += 1
                    yield job
        if not finished:
            yield None


def _take(queue: deque[_Question], most_atoms: int, most_pairs: int) -> list[_Question]:
    """The next batch of a queue: one question at least."""
    batch = [queue.popleft()]
    atoms, pairs = batch[0].size, batch[0].size ** 2
    while queue:
        size = queue[0].size
        if atoms + size > most_atoms or pairs + size * size > most_pairs:
            break
        batch.append(queue.popleft())
        atoms, pairs = atoms + size, pairs + size * size
    return batch


class PotentialEvaluator:
    """Energies, forces and stresses of batches; a structure that cannot be evaluated fails alone."""

    def __init__(self, model: Any, *, device: str = "auto", dtype: str = "float32") -> None:
        self.network: Any = load_potential(model, device=device, dtype=dtype)
        self.device, self.dtype = pick_device(device), read_dtype(dtype)

    def evaluate(self, structures: Sequence[Any], *, forces: bool, stress: bool) -> list[Result | ScreeningFailure]:
        """A Result with what was asked for, or why there is none, for each structure."""
        return _halving(structures, partial(self._evaluate, forces=forces, stress=stress))

    def _evaluate(self, structures: Sequence[Any], *, forces: bool, stress: bool) -> list[Result | ScreeningFailure]:
        batch = batch_for_prediction(structures, self.dtype, self.device)
        edges = local_edges(batch, neighbour_cutoff(self.network))
        close = _too_close(batch, edges)
        if close.any():
            return _without(structures, close, partial(self.evaluate, forces=forces, stress=stress))

        def energies_of(moved: AtomsBatch) -> Tensor:
            energies: Tensor = self.network(moved, edges)
            return energies

        found = differentiate(energies_of, batch, forces=forces, stress=stress)
        return [_finite(result) for result in split_results(batch, found)]


class PropertyEvaluator:
    """Values of one property of batches."""

    def __init__(self, property_: str, model: Any = None, *, device: str = "auto", dtype: str = "float32") -> None:
        from ase_potnet.prediction import model_for, target_column
        from ase_potnet.pretrained import load_model, model_info

        info = model_for(property_) if model is None else model_info(model)
        self.column = target_column(info, property_)
        self.info, self.unit = info, info.targets[self.column].unit
        self.device, self.dtype = pick_device(device), read_dtype(dtype)
        self.network = load_model(info.folder, device=self.device, dtype=self.dtype)

    def evaluate(self, structures: Sequence[Any], *, forces: bool, stress: bool) -> list[float | ScreeningFailure]:
        """A value, or why there is none, for each structure."""
        return _halving(structures, self._evaluate)

    def _evaluate(self, structures: Sequence[Any]) -> list[float | ScreeningFailure]:
        batch = batch_for_prediction(structures, self.dtype, self.device)
        close = _too_close(batch, local_edges(batch, CLOSEST))
        if close.any():
            return _without(structures, close, partial(_halving, evaluate=self._evaluate))
        with torch.no_grad():
            values = self.network(batch)[:, self.column].double().cpu().tolist()
        return [
            value if np.isfinite(value) else ScreeningFailure(EXPLODED, "the value is not finite") for value in values
        ]


def _halving(structures: Sequence[Any], evaluate: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
    """The answers; where a batch fails, those of its halves, so that what cannot be evaluated fails alone."""
    try:
        return evaluate(structures)
    except (ValueError, torch.OutOfMemoryError) as error:
        if len(structures) == 1:
            return [_failure(error)]
    half = len(structures) // 2
    return [*_halving(structures[:half], evaluate), *_halving(structures[half:], evaluate)]


def _too_close(batch: AtomsBatch, edges: Edges) -> np.ndarray[Any, Any]:
    """Which structures have atoms that nearly coincide. (B,) bool"""
    close = np.zeros(batch.n_structures, dtype=bool)
    vectors = edges.vectors(batch)
    near = (vectors * vectors).sum(1) < CLOSEST**2
    if near.any():
        close[batch.batch[edges.receiver[near]].cpu().numpy()] = True
    return close


def _without(
    structures: Sequence[Any], close: np.ndarray[Any, Any], evaluate: Callable[[list[Any]], list[Any]]
) -> list[Any]:
    """The others of a batch, where some structures have atoms that nearly coincide."""
    rest = [s for s, bad in zip(structures, close, strict=True) if not bad]
    answers = iter(evaluate(rest) if rest else [])
    message = f"atoms nearer to one another than {CLOSEST} Å"
    return [ScreeningFailure(EXPLODED, message) if bad else next(answers) for bad in close]


def _finite(result: Result) -> Result | ScreeningFailure:
    """The result, unless it holds NaN or infinity."""
    arrays = (np.float64(result.energy), result.forces, result.stress)
    if all(array is None or np.isfinite(array).all() for array in arrays):
        return result
    return ScreeningFailure(EXPLODED, "energy, forces or stress are not finite")


def _failure(error: Exception) -> ScreeningFailure:
    text = " ".join(str(error).split()).removeprefix("structures[0]").lstrip(": ")
    if isinstance(error, torch.OutOfMemoryError):
        return ScreeningFailure(BAD_STRUCTURE, "too large for the memory of the device")
    return ScreeningFailure(UNSUPPORTED if "elements" in text else BAD_STRUCTURE, text)


def as_tuple(atoms: Atoms) -> tuple[Any, Any, Any, Any]:
    """Numbers, positions, cell and periodicity: what an evaluator wants, without a copy."""
    return atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
