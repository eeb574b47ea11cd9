"""How long a screening will take, by simulation, checked by a run: `python benchmarks/screening_plan.py [--data FILE]`.

1. Costs: a few hundred crystals are screened in one process, shard after shard. The time of a shard is fitted by
   start + slope x (atoms x evaluations of its crystals); reading and copying of records are timed, too.
2. Check: a run with two processes (`--workers`) and shards of another size against a simulation of it, event by event.
   `--replay 10` lets the workers wait for ten times the measured time of each crystal instead of computing, for
   machines where fewer cores are free.
3. Plan: the simulation for 10^7 crystals, drawn from those measured, in ten runs of 10^6, with more and more workers.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from ase_potnet.screening import Crystal, Summary, records
from ase_potnet.screening.screening import make_plan
from ase_potnet.screening.shards import Shard, _merge, _write_shards, screen_shards, work
from ase_potnet.screening.sources import candidates
from ase_potnet.screening.store import Store, rows_of

RUNS, SHARD = 10, 1000  # of the plan: runs side by side, crystals of a shard
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What a screening costs, in seconds.

    read, copy: of a crystal in the process that started the run: reading it and writing its shard, copying its record
    shard: of a shard in that process, however small: files and commits
    start: of a shard in a worker, before its first crystal
    begin: of a worker, before its first shard
    crystals: (n,) of each crystal in a worker
    record: bytes of a record
    """

    read: float
    copy: float
    shard: float
    start: float
    begin: float
    crystals: Array
    record: float


@dataclass(frozen=True)
class Replay:
    """Waits for as long as a crystal has taken. costs: JSON file, seconds by id"""

    costs: str = ""
    name: ClassVar[str] = "replay"
    columns: ClassVar[Mapping[str, str]] = {}

    def run(self, crystal: Crystal) -> dict[str, Any]:
        if self.costs not in _KNOWN:
            _KNOWN[self.costs] = json.loads(Path(self.costs).read_text())
        time.sleep(_KNOWN[self.costs][crystal.id])
        return {}


_KNOWN: dict[str, dict[str, float]] = {}


def simulate(shards: Sequence[float], sizes: Sequence[int], workers: int, costs: Costs) -> float:
    """Seconds until all shards are done and copied.

    One process reads shards ahead, two for each worker, and copies those that are done; workers take them in order.

    Args:
        shards: seconds of each in a worker; sizes: crystals of each
    """
    clock, waiting = 0.0, list(zip(shards, sizes, strict=True))[::-1]
    free: list[float] = []  # when each worker has time
    running: list[tuple[float, int]] = []
    while waiting or running:
        while waiting and len(running) < 2 * workers:
            seconds, n = waiting.pop()
            clock += n * costs.read
            ready = clock + costs.begin if len(free) < workers else max(clock, heapq.heappop(free))
            heapq.heappush(free, ready + seconds)
            heapq.heappush(running, (ready + seconds, n))
        end, n = heapq.heappop(running)
        clock = max(clock, end) + costs.shard + n * costs.copy
    return clock


def crystals(data: Path | None, number: int) -> list[tuple[str, Atoms]]:
    """Every so many crystals of a file, or built ones of 2 to 64 atoms."""
    if data is not None:
        every = (c for c in candidates(data) if c.atoms is not None)
        return [(c.id, c.atoms) for c in itertools.islice(every, 0, 23 * number, 23) if c.atoms is not None]
    kinds = [("Na", "Cl", 5.6), ("Mg", "O", 4.2), ("Li", "F", 4.0), ("K", "Br", 6.6)]
    made = []
    for n in range(number):
        a, b, length = kinds[n % len(kinds)]
        atoms = bulk(a + b, "rocksalt", a=length, cubic=n % 2 == 1) * (1 + (n % 5 == 0), 1 + (n % 7 == 0), 1 + n % 2)
        atoms.rattle(0.03, seed=n)
        made.append((f"{a}{b}-{n}", atoms))
    return made


def measure(some: list[tuple[str, Atoms]], size: int, tasks: str, model: str, workers: int, folder: Path) -> Costs:
    """Screen the crystals in this process, shard after shard, with a clock in hand."""
    plan = make_plan(tasks, model, device="cpu")
    shards = folder / "measured.shards"
    shards.mkdir()
    effort, seconds, merging = [], [], 0.0
    with Store(folder / "measured.db", plan.settings) as store:
        before = time.perf_counter()
        paths = list(_write_shards(some, store, shards, size, Summary()))
        reading = time.perf_counter() - before
        for n, path in enumerate([paths[0], *paths]):  # the first warms up
            shard = Shard(str(path), tuple(tasks.split(",")), model, {}, "cpu", "float32", None)
            before = time.perf_counter()
            work(shard)
            took = time.perf_counter() - before
            if n == 0:
                path.with_suffix(".db").unlink()
                continue
            seconds.append(took)
            effort.append(sum(_effort(record.n_atoms, record.values) for record in records(path.with_suffix(".db"))))
            before = time.perf_counter()
            _merge(path.with_suffix(".db"), store, Summary())
            merging += time.perf_counter() - before
    with Store(folder / "copy.db", plan.settings) as store:
        before = time.perf_counter()
        store.add_rows(rows_of(folder / "measured.db"))
        copying = time.perf_counter() - before
    start, slope = _line(np.array(effort), np.array(seconds))
    found = list(records(folder / "measured.db"))
    each = {r.id: slope * _effort(r.n_atoms, r.values) for r in found}
    print(
        f"{len(found)} crystals in {len(paths)} shards: {sum(seconds):.1f} s; a shard {start:.2f} s + "
        f"{1e3 * slope:.2f} ms for each atom and evaluation; fit to "
        f"{100 * _scatter(effort, seconds, start, slope):.0f} % a shard"
    )
    return Costs(
        read=reading / len(some),
        copy=copying / len(some),
        shard=max(0.0, merging - copying) / len(paths),
        start=start,
        begin=_begin(workers),
        crystals=np.array([each[name] for name, _ in some]),
        record=(folder / "measured.db").stat().st_size / len(found),
    )


def _effort(n_atoms: int, values: Mapping[str, Any]) -> float:
    """Atoms times evaluations."""
    return n_atoms * (1 + values.get("relax_steps", 0))


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Intercept, not below zero, and slope, weighted like y."""
    weights = 1 / y
    slope, start = np.polyfit(x, y, 1, w=weights)
    if start < 0:
        return 0.0, float((weights**2 * x * y).sum() / (weights**2 * x * x).sum())
    return float(start), float(slope)


def _scatter(effort: list[float], seconds: list[float], start: float, slope: float) -> float:
    return float(np.mean([abs(start + slope * e - s) / s for e, s in zip(effort, seconds, strict=True)]))


def _begin(workers: int) -> float:
    """Seconds until fresh processes, all started at once, could load a model."""
    before = time.perf_counter()
    command = [sys.executable, "-c", "import ase_potnet.screening.shards"]
    for process in [subprocess.Popen(command) for _ in range(workers)]:
        process.wait()
    return time.perf_counter() - before


def _parsing(data: Path, number: int = 300) -> float:
    """Seconds to read a crystal of the file."""
    before = time.perf_counter()
    number = sum(1 for _ in itertools.islice(candidates(data), number))
    return (time.perf_counter() - before) / number


def check(some: list[tuple[str, Atoms]], size: int, costs: Costs, arguments: argparse.Namespace, folder: Path) -> None:
    """A run with several processes against its simulation."""
    options: dict[str, Any] = {}
    tasks = arguments.do
    if arguments.replay:
        costs = replace(costs, crystals=arguments.replay * costs.crystals, start=0.0)
        each = {name: seconds for (name, _), seconds in zip(some, costs.crystals.tolist(), strict=True)}
        (folder / "costs.json").write_text(json.dumps(each))
        tasks, options = "screening_plan.Replay", {"screening_plan.Replay.costs": str(folder / "costs.json")}
    before = time.perf_counter()
    summary = screen_shards(
        some, tasks, folder / "check.db", model=arguments.model, options=options, device="cpu",
        processes=arguments.workers, size=size,
    )  # fmt: skip
    took = time.perf_counter() - before
    assert summary.done + summary.failed == len(some)
    groups = [costs.crystals[first : first + size] for first in range(0, len(some), size)]
    shards = [costs.start + float(group.sum()) for group in groups]
    expected = simulate(shards, [len(group) for group in groups], arguments.workers, costs)
    how = "that wait" if arguments.replay else "that compute"
    print(
        f"{arguments.workers} workers {how}, shards of {size}: {took:.1f} s, simulated {expected:.1f} s "
        f"({100 * (expected / took - 1):+.0f} %); one worker would take "
        f"{simulate(shards, [len(group) for group in groups], 1, costs):.1f} s"
    )


def plan(costs: Costs, number: int, workers: Sequence[int]) -> None:
    """Hours of ``number`` crystals like those measured."""
    rng = np.random.default_rng(0)
    n_shards = number // RUNS // SHARD
    drawn = rng.choice(costs.crystals, (n_shards, SHARD)).sum(1) + costs.start
    ideal = number * costs.crystals.mean()
    print(
        f"\n{number:,} crystals in {RUNS} runs: {ideal / 3600:.0f} h of one core, {number * costs.record / 1e9:.0f} GB"
    )
    print("\n| workers of all runs | hours | busy | hours, one run |")
    print("|---|---|---|---|")
    every = rng.choice(costs.crystals, (number // SHARD, SHARD)).sum(1) + costs.start
    for w in workers:
        split = simulate(drawn.tolist(), [SHARD] * n_shards, w // RUNS, costs)
        single = simulate(every.tolist(), [SHARD] * len(every), w, costs)
        print(f"| {w} | {split / 3600:.1f} | {100 * ideal / w / split:.0f} % | {single / 3600:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="file of crystals; default: built ones")
    parser.add_argument("--crystals", type=int, default=300)
    parser.add_argument("--do", default="energy", help="tasks, such as relax,energy")
    parser.add_argument("--model", default="default")
    parser.add_argument("--workers", type=int, default=2, help="processes of the check")
    parser.add_argument("--replay", type=float, metavar="X", help="wait X times as long instead of computing")
    parser.add_argument("--number", type=int, default=10_000_000, help="crystals of the plan")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    some = crystals(arguments.data, arguments.crystals)
    with tempfile.TemporaryDirectory() as name:
        costs = measure(some, max(1, len(some) // 12), arguments.do, arguments.model, arguments.workers, Path(name))
        print(
            f"reading {1e3 * costs.read:.2f} ms, copying {1e3 * costs.copy:.2f} ms, computing "
            f"{1e3 * costs.crystals.mean():.1f} ms a crystal; a worker begins after {costs.begin:.1f} s; "
            f"{costs.record:.0f} bytes a record; {1e3 * costs.shard:.0f} ms a shard to merge"
        )
        check(some, max(1, len(some) // 20), costs, arguments, Path(name))
    if arguments.data is not None:  # the check had its crystals in memory
        costs = replace(costs, read=costs.read + _parsing(arguments.data))
    plan(costs, arguments.number, [10, 30, 100, 300, 1000, 3000])


if __name__ == "__main__":
    main()
