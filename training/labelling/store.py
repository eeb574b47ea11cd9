"""The folder of a labelling run: one writer at a time, nothing finished is lost, nothing is half written."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ase_potnet.checks import changes
from ase_potnet.file_safety import exclusive_lock, replacing

from ..data.label_shards import (
    JOURNAL,
    PROVENANCE,
    SHARD_PATTERN,
    SHARDS,
    Failure,
    Result,
    from_line,
    pack,
    read_shard,
    shard_paths,
    to_line,
)

FRAMES_A_SHARD = 500
SYNC_SECONDS = 2.0  # at most this much work is lost when the power fails; a killed process loses none
LOCK = "lock"
SCRATCH = "scratch"
FIXED = ("calculator", "recipe", "input")  # must be the same when a run is resumed


class Store:
    """The folder OUT of a labelling run, locked for this process; see `ase_potnet.training.data.label_shards`.

    Every result is appended to a journal at once and so survives a kill; `FRAMES_A_SHARD` of them become a shard,
    written under another name, synced and renamed. A context manager.

    Args:
        folder: made if it is not there
        provenance: "calculator", "recipe" and "input" must equal those of the run that is resumed

    Attributes:
        done: (structure, frame) of every result in the folder
        labelled, failed: their numbers
        reasons: number of failures by reason, without the numbers in brackets behind it

    Raises:
        ValueError: the folder holds something else, another calculator's, recipe's or input's labels, or a damaged
            shard; or another run is writing there.
    """

    def __init__(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.folder = folder
        self.done: set[tuple[str, int]] = set()
        self.labelled, self.failed = 0, 0
        self.reasons = Counter[str]()
        self._pending: list[Result] = []  # in the journal, not yet in a shard
        self._synced = time.monotonic()
        self._close = contextlib.ExitStack()
        try:
            self._open(provenance)
        except BaseException:
            self._close.close()
            raise

    def _open(self, provenance: dict[str, Any]) -> None:
        if self.folder.exists() and not (self.folder / PROVENANCE).is_file():
            known = {LOCK, SHARDS, SCRATCH, f"{PROVENANCE}.tmp"}  # what a run may leave that is killed at its start
            if shard_paths(self.folder) or any(path.name not in known for path in self.folder.iterdir()):
                raise ValueError(f"out: the folder {self.folder} holds other things than labels; name a new one")
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        self._close.enter_context(exclusive_lock(self.folder / LOCK))
        self.provenance = self._resumed(provenance)
        self.write_provenance()
        for rest in (self.folder / SHARDS).glob("*.tmp"):  # of a run that was killed
            rest.unlink()
        self._shards = sorted((self.folder / SHARDS).glob(SHARD_PATTERN))
        for path in self._shards:
            try:
                results = read_shard(path)
            except (ValueError, OSError) as error:
                hint = "move it away, and the next run labels its frames again"
                raise ValueError(f"out: {error}; {hint}") from error
            self._count(results)
        self._pending = list(self._recover(self.folder / JOURNAL))
        self._count(self._pending)
        self._journal: IO[str] = self._close.enter_context((self.folder / JOURNAL).open("a", encoding="utf-8"))

    def _resumed(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """The provenance of the folder, which must agree with the one given; that one for a new folder."""
        path = self.folder / PROVENANCE
        if not path.is_file():
            return provenance
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            kept, now = ({key: values[key] for key in FIXED} for values in (old, provenance))
            differences = [str(change) for change in changes(kept, now) if change.key != "input.path"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"out: {path} is damaged, or of something else ({error})") from error
        if differences:
            raise ValueError(
                f"out: {self.folder} holds labels made otherwise; name a new folder. {'; '.join(differences)}"
            )
        return {**provenance, **old}

    def _recover(self, path: Path) -> Iterator[Result]:
        """The journal's results that are in no shard; a line that was cut off is removed from the file."""
        if not path.is_file():
            return
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with path.open("r+b") as file:
                file.truncate(end)
        for number, line in enumerate(content[:end].decode("utf-8", errors="replace").splitlines(), 1):
            try:
                result = from_line(line)
            except ValueError as error:
                raise ValueError(f"out: {path}, line {number}, is damaged ({error}); remove that line") from error
            if (result.material_id, result.frame) not in self.done:
                yield result

    def _count(self, results: list[Result]) -> None:
        for result in results:
            self.done.add((result.material_id, result.frame))
            failed = isinstance(result, Failure)
            self.labelled += not failed
            self.failed += failed
            if isinstance(result, Failure):
                self.reasons[result.reason.split(" (")[0]] += 1

    def add(self, result: Result) -> None:
        """Keep a result: from here on a kill does not lose it."""
        self._journal.write(to_line(result))
        self._journal.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._journal.fileno())
            self._synced = time.monotonic()
        self._pending.append(result)
        self._count([result])
        if len(self._pending) >= FRAMES_A_SHARD:
            self.flush()

    def flush(self) -> None:
        """Make a shard of what is in the journal only, and empty the journal."""
        if self._pending:
            number = 1 + max((int(path.stem.rpartition("_")[2]) for path in self._shards), default=-1)
            path = self.folder / SHARDS / f"shard_{number:05d}.npz"
            fixed = {key: self.provenance[key] for key in FIXED}
            with replacing(path) as file:
                np.savez_compressed(file, provenance=np.array(json.dumps(fixed)), **pack(self._pending))  # type: ignore[arg-type]
            self._shards.append(path)
            self._pending = []
        self._journal.truncate(0)  # a kill before this line leaves results twice, which `_recover` sees

    def write_provenance(self) -> None:
        """Write `provenance` to the folder."""
        with replacing(self.folder / PROVENANCE) as file:
            file.write((json.dumps(self.provenance, indent=1) + "\n").encode())

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        """Release the folder. What is only in the journal stays there."""
        for folder in (*(self.folder / SCRATCH).glob("*"), self.folder / SCRATCH):
            with contextlib.suppress(OSError):  # not empty, or not there
                folder.rmdir()
        self._close.close()
