"""Worker processes: started afresh, one thread each, replaced when one dies."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from ..data.label_shards import Failure, Result
from .perturb import frame_seed
from .worker import Job, Settings, kill_group, work

BATCH_SECONDS = 0.25  # work sent to a process at once
MAX_BATCH = 64
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


class _Worker:
    """A process, the connection to it, and the jobs that it has not answered yet."""

    def __init__(self, settings: Settings, number: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.number = number
        self.jobs: deque[Job] = deque()
        self.ready = False
        self.started = 0.0  # when it began the first of its jobs
        self.process = context.Process(target=work, args=(there, settings, number), name=f"label-{number}")
        with _environment(dict.fromkeys(_THREADS, str(threads))):
            self.process.start()
        there.close()

    def receive(self) -> Any:
        """The next message, or None if the process has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self._kill_programs()
            self.process.join()
            return None

    def close(self) -> None:
        self.connection.close()
        self._kill_programs()
        self.process.kill()
        self.process.join()

    def _kill_programs(self) -> None:
        """What the calculator has started, too."""
        if self.process.pid is not None:
            kill_group(self.process.pid)


class Pool:
    """Worker processes. A context manager; leaving it kills those that still run.

    Args:
        settings: for every worker
        processes: number of processes
        threads: of each

    Attributes:
        calculator: the description of the calculator, from the first worker

    Raises:
        ValueError: the calculator cannot be made.
    """

    def __init__(self, settings: Settings, processes: int, threads: int) -> None:
        self._settings, self._threads = settings, threads
        self._workers = [_Worker(settings, 0, threads)]
        try:
            self.calculator = self._greet(self._workers[0])
        except BaseException:
            self.close()
            raise
        self._processes = processes
        self._seconds = BATCH_SECONDS  # mean time of a frame
        self._exhausted = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the processes that still run."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def run(self, jobs: Iterator[Job], stopped: Callable[[], bool], tick: float = 0.5) -> Iterator[Result | None]:
        """The results of the jobs as they come; None when nothing has come for `tick` seconds.

        Once `stopped` says so no further job is started; frames under way are finished.
        """
        waiting = deque[Job]()  # sent to a process that died before it came to them
        self._exhausted = False
        while len(self._workers) < self._processes:
            self._workers.append(_Worker(self._settings, len(self._workers), self._threads))
        while True:
            for worker in self._workers:
                if worker.ready and not worker.jobs and not stopped():
                    self._send(worker, waiting, jobs)
            more = bool(waiting or not self._exhausted) and not stopped()
            busy = {w.connection: w for w in self._workers if w.jobs or (more and not w.ready)}
            if not busy:
                return
            came = wait(list(busy), timeout=tick)
            if not came:
                yield None
            for connection in came:
                assert isinstance(connection, Connection)
                yield from self._answer(busy[connection], waiting)
            if stopped():
                waiting.clear()

    def _send(self, worker: _Worker, waiting: deque[Job], jobs: Iterator[Job]) -> None:
        size = max(1, min(MAX_BATCH, int(BATCH_SECONDS / self._seconds)))
        batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        batch += itertools.islice(jobs, size - len(batch))
        if not batch:
            self._exhausted = True
            return
        worker.jobs.extend(batch)
        worker.started = time.monotonic()
        with contextlib.suppress(OSError):  # it died: its connection reports the end next
            worker.connection.send(batch)

    def _answer(self, worker: _Worker, waiting: deque[Job]) -> Iterator[Result]:
        """What follows from a message of a worker, or from its end."""
        if not worker.ready:
            self._greet(worker)
            return
        message = worker.receive()
        now = time.monotonic()
        if message is not None:
            worker.jobs.popleft()
            self._seconds += 0.1 * (now - worker.started - self._seconds)
            worker.started = now
            yield message
            return
        job = worker.jobs.popleft()
        waiting.extend(worker.jobs)
        worker.connection.close()
        self._workers[self._workers.index(worker)] = _Worker(self._settings, worker.number, self._threads)
        seed = frame_seed(self._settings.recipe.seed, job.material_id, job.frame)
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        yield Failure(job.material_id, "none", job.frame, seed, job.index, f"the process died ({how})")

    def _greet(self, worker: _Worker) -> Any:
        """The description of a worker's calculator."""
        message = worker.receive()
        if message is None:
            raise ValueError(f"calculator: its process died at the start (exit code {worker.process.exitcode})")
        if isinstance(message, str):
            raise ValueError(message)
        worker.ready = True
        return message


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started in this block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
