"""Screening by many processes, here or on a cluster: every shard has a file of results of its own.

    OUT.shards/000000.jsonl   crystals of a shard: id, key, source and structure, a line each
    OUT.shards/000000.db      its results; a worker that is killed goes on from there
    OUT.shards/000000.at      crystals that a worker was busy with: a line each time it died there

A finished shard is copied into OUT by the one process that started the run, and removed; so is what a killed run has
left. A crystal at which workers died twice is a failure.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ase_potnet.checks import changes
from ase_potnet.file_safety import replacing
from ase_potnet.progress import show
from ase_potnet.readers.files import Progress
from ase_potnet.screening.failures import DIED, ScreeningFailure
from ase_potnet.screening.pipeline import failed, run_tasks, unreadable
from ase_potnet.screening.screening import Summary, looked_up, make_plan
from ase_potnet.screening.sources import Candidate, candidates, count
from ase_potnet.screening.store import Store, pack, records, rows_of, settings_in, unpack

DEATHS = 20  # of workers in one shard until the run stops
_AT_ONCE = 2  # deaths at one crystal that make it a failure; in batches, until crystals are evaluated one by one
_BATCH = "batch"  # in place of a key
_GRACE = 5.0  # seconds beyond the time limit until a worker that hangs ends itself
_LOST = {"BrokenProcessPool", "WorkerLost", "ManagerLost"}


@dataclass(frozen=True)
class Shard:
    """What a worker needs to know. All of it is text and numbers.

    path: of the crystals; the other arguments as of ``screen``
    """

    path: str
    tasks: tuple[str, ...]
    model: str
    options: dict[str, Any]
    device: str
    dtype: str
    time_limit: float | None


class Pool(Protocol):
    """Workers that do shards."""

    width: int

    def submit(self, shard: Shard) -> Future[None]:
        """Start a shard as soon as a worker is free."""

    def renew(self) -> None:
        """Start again after workers have died."""

    def close(self) -> None:
        """End the workers."""


def screen_shards(
    sources: Any,
    tasks: str | Sequence[str],
    out: str | Path,
    *,
    model: str | Path = "default",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "float32",
    unique: str | None = None,
    time_limit: float | None = 600.0,
    processes: int = 2,
    config: str | Path | None = None,
    size: int = 1000,
    progress: Progress = False,
) -> Summary:
    """Screen with several processes, or with Parsl's executors; the same call goes on after any kill.

    Args:
        processes: of this machine, where there is no config.
        config: YAML file of Parsl's options (see docs/screening.md).
        size: crystals of a shard.
        others: as of ``screen``; tasks by name only, ``unique`` not at all.

    Raises:
        ValueError: naming the argument.
        RuntimeError: workers died again and again in one shard.
    """
    if unique is not None:
        raise ValueError("unique: duplicates are looked for by one process; drop processes and config")
    if size < 1 or (config is None and processes < 1):
        raise ValueError(f"size, processes: wanted numbers from 1, got {size} and {processes}")
    names = tuple(p.strip() for text in ([tasks] if isinstance(tasks, str) else tasks) for p in text.split(","))
    plan = make_plan(names, model, options=options, device=device, dtype=dtype, time_limit=time_limit)
    total = count(sources) if progress else None
    folder = Path(f"{out}.shards")
    summary = Summary()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(out, plan.settings))
        report = stack.enter_context(show(total, 0, progress, what="screening", unit="crystals"))
        folder.mkdir(exist_ok=True)
        for rest in sorted(folder.glob("*.db")):
            _take_in(rest, store, plan.settings)
        for path in folder.glob("*.jsonl*"):
            path.unlink()
        pool: Pool = _Processes(processes) if config is None else _parsl(config)
        stack.callback(pool.close)
        shards = (
            Shard(str(path), names, str(model), dict(options or {}), device, dtype, time_limit)
            for path in _write_shards(sources, store, folder, size, summary)
        )
        for shard in _done(shards, pool):
            _merge(Path(shard.path).with_suffix(".db"), store, summary)
            report(summary.finished, summary.failed)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return summary


def _take_in(rest: Path, store: Store, settings: dict[str, Any]) -> None:
    """Copy what a run before has left of a shard. Raises ValueError if it was a run of something else."""
    kept = settings_in(rest)
    if kept is None:  # killed, or the disk was full, before its first result
        _remove(rest)
    elif differing := next(changes(kept, settings), None):
        raise ValueError(
            f"out: {rest.parent} holds results made otherwise ({differing}); remove it, or name another file"
        )
    else:
        _merge(rest, store, Summary())


def _write_shards(sources: Any, store: Store, folder: Path, size: int, summary: Summary) -> Iterator[Path]:
    """Files with the crystals that have no record yet; what cannot be read becomes a record."""
    every = _unknown(candidates(sources), store, summary)
    for number in itertools.count():
        some = list(itertools.islice(every, size))
        if not some:
            return
        path = folder / f"{number:06d}.jsonl"
        with replacing(path) as file:
            for c in some:
                assert c.atoms is not None
                line = {"key": c.key, "id": c.id, "source": c.source, "structure": pack(c.atoms)}
                file.write(json.dumps(line).encode() + b"\n")
        yield path


def _unknown(every: Iterator[Candidate], store: Store, summary: Summary) -> Iterator[Candidate]:
    for candidate, known in looked_up(every, store, summary):
        if known:
            continue
        if candidate.atoms is None:
            record = unreadable(candidate)
            summary.add(record)
            store.add(record)
        else:
            yield candidate


def _merge(path: Path, store: Store, summary: Summary) -> None:
    """Copy the results of a shard, then remove its files."""
    if path.is_file():
        store.flush()
        store.add_rows(rows_of(path))
        for record in records(path, structures=False):
            summary.add(record)
    _remove(path)


def _remove(path: Path) -> None:
    """The files of a shard."""
    for suffix in (".jsonl", ".at", ".db-journal", ".db.lock", ".db"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _done(shards: Iterator[Shard], pool: Pool) -> Iterator[Shard]:
    """The shards, each when it has been done; those whose worker died are started again.

    Raises RuntimeError where workers die again and again, and what a worker raises otherwise.
    """
    under_way: dict[Future[None], Shard] = {}
    deaths = Counter[str]()
    while True:
        for shard in itertools.islice(shards, max(2 * pool.width - len(under_way), 0)):
            under_way[pool.submit(shard)] = shard
        if not under_way:
            return
        ready, _ = wait(under_way, return_when=FIRST_COMPLETED)
        lost, broken = [], False
        for future in ready:
            shard = under_way.pop(future)
            error = future.exception()
            if error is None:
                yield shard
            elif type(error).__name__ in _LOST:
                lost.append(shard)
                broken |= isinstance(error, BrokenProcessPool)
            else:
                raise error
        if lost:
            if broken:  # the others ended with it
                lost += under_way.values()
                under_way.clear()
            pool.renew()
            for shard in lost:
                deaths[shard.path] += 1
                if deaths[shard.path] > DEATHS:
                    raise RuntimeError(f"workers died {DEATHS} times in {shard.path}; is there too little memory?")
                under_way[pool.submit(shard)] = shard


def work(shard: Shard) -> None:
    """Do one shard; what a worker before has finished is kept. Runs in a process of its own."""
    path = Path(shard.path)
    plan = make_plan(
        shard.tasks, shard.model, options=shard.options, device=shard.device, dtype=shard.dtype,
        time_limit=shard.time_limit,
    )  # fmt: skip
    with (
        _Watch(path.with_suffix(".at"), shard.time_limit) as watch,
        Store(path.with_suffix(".db"), plan.settings) as store,
    ):
        every = [_candidate(line) for line in path.read_text(encoding="utf-8").splitlines()]
        known = store.known(candidate.key for candidate in every)
        todo = []
        for candidate in every:
            if candidate.key in known:
                continue
            if watch.deaths[candidate.key] >= _AT_ONCE:
                message = f"its process died {watch.deaths[candidate.key]} times, or hung"
                store.add(failed(candidate, ScreeningFailure(DIED, message)))
            else:
                todo.append(candidate)
        store.flush()
        for record in run_tasks(
            todo, plan.tasks, plan.evaluators, device=shard.device, time_limit=shard.time_limit,
            started=watch.started, evaluating=watch.evaluating, one_by_one=watch.deaths[_BATCH] >= _AT_ONCE,
        ):  # fmt: skip
            if record is not None:
                store.add(record)
            store.flush_if_due()


def _candidate(line: str) -> Candidate:
    data = json.loads(line)
    return Candidate(data["key"], data["id"], data["source"], unpack(data["structure"]))


class _Watch:
    """Keeps on disk which crystal a worker is busy with, and ends the process where a task hangs beyond all signals.

    deaths: of workers, by key of the crystal, or "batch" where a model was evaluating several
    """

    def __init__(self, path: Path, limit: float | None) -> None:
        self.deaths = Counter(path.read_text(encoding="ascii").split()) if path.is_file() else Counter[str]()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._file, b"\n")
        self._end = os.fstat(self._file).st_size
        self._limit, self._since = limit, 0.0
        self._stop = threading.Event()
        if limit is not None:
            threading.Thread(target=self._guard, args=(limit,), daemon=True).start()

    def started(self, candidate: Candidate | None) -> None:
        """A task begins with a crystal, or (None) has handed over."""
        if candidate is None:
            self._since = 0.0
            os.ftruncate(self._file, self._end)
        else:
            self._since = time.monotonic()
            os.write(self._file, candidate.key.encode() + b"\n")

    def evaluating(self, keys: list[str]) -> None:
        """A model begins with a batch, or ([]) has finished it."""
        if keys:
            os.write(self._file, f"{keys[0] if len(set(keys)) == 1 else _BATCH}\n".encode())
        else:
            os.ftruncate(self._file, self._end)

    def _guard(self, limit: float) -> None:
        while not self._stop.wait(min(1.0, limit)):
            since = self._since
            if since and time.monotonic() - since > limit + _GRACE:
                os._exit(1)

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        os.close(self._file)


class _Processes:
    """Processes of this machine, started afresh, one thread each; they end with this process."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.width, mp_context=context, initializer=_begin)

    def submit(self, shard: Shard) -> Future[None]:
        try:
            return self._pool.submit(work, shard)
        except BrokenProcessPool as error:
            future: Future[None] = Future()
            future.set_exception(error)
            return future

    def renew(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new()

    def close(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """What a worker does first."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _parsl(config: str | Path) -> Pool:
    from ase_potnet.screening.cluster import ParslPool

    return ParslPool(config)
