"""Tasks one after the other on one crystal, and what came of it as a record."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from time import perf_counter
from types import FrameType
from typing import Any

from ase_potnet.pretrained.format import pick_device
from ase_potnet.screening.engine import (
    Answers,
    Ask,
    Evaluator,
    Job,
    PotentialEvaluator,
    PropertyEvaluator,
    advance_all,
)
from ase_potnet.screening.failures import BAD_FILE, TASK_ERROR, TIME_LIMIT, ScreeningFailure
from ase_potnet.screening.sources import Candidate
from ase_potnet.screening.store import DONE, FAILED, Record, check_values
from ase_potnet.screening.tasks import PROPERTY, Crystal, Task

MESSAGE_LENGTH = 500


class _Overtime(BaseException):
    """Raised in a task by the clock; no ``except Exception`` of a task holds it up."""


class _Run:
    """A crystal, the task that it is in, and how it ended."""

    def __init__(self, candidate: Candidate) -> None:
        assert candidate.atoms is not None
        self.candidate, self.task = candidate, ""
        self.crystal = Crystal(candidate.id, candidate.atoms)
        self.failure: ScreeningFailure | None = None

    def steps(self, tasks: Sequence[Task]) -> Generator[Ask, Answers, None]:
        """All tasks in a row."""
        for task in tasks:
            self.task = task.name
            out = task.run(self.crystal)
            values = ((yield from out) if isinstance(out, Generator) else out) or {}
            check_values(values)
            self.crystal.values.update(values)

    def record(self, seconds: float) -> Record:
        """What is kept."""
        candidate, crystal, failure = self.candidate, self.crystal, self.failure
        return Record(
            candidate.key,
            candidate.id,
            candidate.source,
            DONE if failure is None else FAILED,
            task="" if failure is None else self.task,
            reason="" if failure is None else failure.reason,
            message="" if failure is None else failure.message[:MESSAGE_LENGTH],
            formula=crystal.atoms.get_chemical_formula(mode="metal"),
            n_atoms=len(crystal.atoms),
            values=crystal.values,
            atoms=crystal.atoms,
            seconds=seconds,
        )


class Evaluators:
    """The models that tasks ask, loaded when they are first asked."""

    def __init__(self, model: Any, device: str, dtype: str) -> None:
        self._model, self._device, self._dtype = model, device, dtype
        self._loaded: dict[str, Evaluator] = {}

    def __call__(self, of: str) -> Evaluator:
        if of not in self._loaded:
            self._loaded[of] = self._load(of)
        return self._loaded[of]

    def _load(self, of: str) -> Evaluator:
        if not of.startswith(PROPERTY):
            return PotentialEvaluator(self._model, device=self._device, dtype=self._dtype)
        name, _, model = of.removeprefix(PROPERTY).partition("@")
        return PropertyEvaluator(name, model or None, device=self._device, dtype=self._dtype)


def unreadable(candidate: Candidate) -> Record:
    """The record of a candidate without a structure."""
    return failed(candidate, ScreeningFailure(BAD_FILE, candidate.message), "read")


def failed(candidate: Candidate, failure: ScreeningFailure, task: str = "") -> Record:
    """The record of a candidate that no task has finished."""
    atoms = candidate.atoms
    return Record(
        candidate.key, candidate.id, candidate.source, FAILED, task, failure.reason, failure.message[:MESSAGE_LENGTH],
        formula="" if atoms is None else atoms.get_chemical_formula(mode="metal"),
        n_atoms=0 if atoms is None else len(atoms), atoms=atoms,
    )  # fmt: skip


def run_tasks(
    candidates: Iterable[Candidate],
    tasks: Sequence[Task],
    evaluators: Callable[[str], Evaluator],
    *,
    device: str = "auto",
    time_limit: float | None = None,
    started: Callable[[Candidate | None], None] | None = None,
    evaluating: Callable[[list[str]], None] | None = None,
    one_by_one: bool = False,
) -> Iterator[Record | None]:
    """A record for every candidate with a structure, as they finish; None from time to time.

    Args:
        time_limit: seconds of each step of a task, models not counted; kept by a signal, hence only in the main
            thread of a process and not on Windows.
        started: called with the candidate whose task runs now, and with None when it has handed over.
        evaluating: called with the keys of a batch before a model evaluates it, and with none of them afterwards.
        one_by_one: models evaluate one structure at a time.
    """

    def advance(job: Job, answers: Answers | ScreeningFailure | None) -> Ask | None:
        run: _Run = job.item
        if started is not None:
            started(run.candidate)
        try:
            with _clocked(time_limit):
                if isinstance(answers, ScreeningFailure):
                    return job.steps.throw(answers)
                return job.steps.send(answers)  # type: ignore[arg-type]
        except StopIteration:
            pass
        except ScreeningFailure as failure:
            run.failure = failure
        except _Overtime:
            run.failure = ScreeningFailure(TIME_LIMIT, f"more than {time_limit:g} s")
        except (Exception, SystemExit) as error:  # tasks of others raise anything
            text = " ".join(str(error).split())
            run.failure = ScreeningFailure(TASK_ERROR, f"{type(error).__name__}: {text}")
        finally:
            if started is not None:
                started(None)
        return None

    def jobs() -> Iterator[Job]:
        for candidate in candidates:
            run = _Run(candidate)
            yield Job(run, run.steps(tasks), started=perf_counter())

    def batch_begins(runs: list[_Run]) -> None:
        if evaluating is not None:
            evaluating([run.candidate.key for run in runs])

    for job in advance_all(
        jobs(),
        evaluators,
        advance,
        device=pick_device(device).type,
        most_atoms=1 if one_by_one else None,
        evaluating=batch_begins,
    ):
        yield None if job is None else job.item.record(perf_counter() - job.started)


@contextlib.contextmanager
def _clocked(seconds: float | None) -> Iterator[None]:
    """Raise _Overtime in this block when the time is over."""
    possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not possible:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Overtime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
