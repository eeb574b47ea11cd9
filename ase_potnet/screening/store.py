"""Results in one SQLite file: records are added and never changed, each whole or absent."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_potnet.checks import changes
from ase_potnet.file_safety import exclusive_lock

FIXED = ("id", "formula", "n_atoms", "status", "task", "reason", "message", "source", "key")  # columns of every record
FORMAT = 1
COMMIT_SECONDS = 1.0  # finished work that a kill can lose
COMMIT_RECORDS = 500
DONE, FAILED, DUPLICATE = "done", "failed", "duplicate"

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE results (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL, source TEXT NOT NULL,
    status TEXT NOT NULL, task TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    formula TEXT NOT NULL, n_atoms INTEGER NOT NULL, data TEXT NOT NULL, structure TEXT, seconds REAL, time REAL);
CREATE TRIGGER results_stay BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'results are never changed'); END;
CREATE TRIGGER results_remain BEFORE DELETE ON results BEGIN SELECT RAISE(ABORT, 'results are never deleted'); END;
"""
_COLUMNS = "key, id, source, status, task, reason, message, formula, n_atoms, data, structure, seconds, time"
_PLACES = ", ".join("?" * len(_COLUMNS.split(", ")))


@dataclass(frozen=True)
class Record:
    """What became of one crystal.

    key, id, source: see ``Candidate``
    status: "done", "failed" or "duplicate"
    task: the one that failed; "read" for a file
    reason: of a failure, one of a few
    message: of a failure, what happened; the id of the other one for a duplicate
    formula, n_atoms: "" and 0 where there is no structure
    values: numbers, texts, flags and lists by name; those of finished tasks where a later one failed
    atoms: the structure in the end
    seconds: from the first task to the last, other crystals of its batches included
    """

    key: str
    id: str
    source: str
    status: str
    task: str = ""
    reason: str = ""
    message: str = ""
    formula: str = ""
    n_atoms: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    atoms: Atoms | None = None
    seconds: float = 0.0


class Store:
    """The file of results, locked for this process. A context manager.

    SQLite's rollback journal makes every commit whole or absent, whenever the process or the machine dies;
    triggers refuse changes of what is written.

    Args:
        path: made if it is not there.
        settings: tasks and model, as JSON; must equal those of the run that is resumed.

    Raises:
        ValueError: naming out: something else is in the file, results of other settings, or another run is writing.
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self._pending: list[tuple[Any, ...]] = []
        self._since = time.monotonic()
        self._close = contextlib.ExitStack()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_other_files(self.path)
            self._close.enter_context(_locked(self.path))
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._close.callback(self._connection.close)
            with _plain_errors(self.path):
                self._open(settings)
        except BaseException:
            self._close.close()
            raise

    def _open(self, settings: dict[str, Any]) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous = FULL")
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            text = json.dumps(settings, sort_keys=True)
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO meta VALUES ('format', '{FORMAT}'); COMMIT;"
            )
            run("INSERT INTO meta VALUES ('settings', ?)", (text,))
            return
        if not {"meta", "results"} <= tables:
            raise ValueError(f"out: {self.path} is a database of something else; name a new file")
        kept = read_settings(self._connection)
        if kept is None or run("SELECT key FROM results LIMIT 1").fetchone() is None:  # nothing came of the run before
            run("INSERT OR REPLACE INTO meta VALUES ('settings', ?)", (json.dumps(settings, sort_keys=True),))
        elif differing := next(changes(kept, settings), None):
            raise ValueError(f"out: {self.path} holds results made otherwise ({differing}); name a new file")

    def known(self, keys: Iterable[str]) -> set[str]:
        """Which of the keys have a record, those that are not yet on disk included."""
        wanted = list(keys)
        found = {row[0] for row in self._pending}.intersection(wanted)
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            places = ",".join("?" * len(some))
            rows = self._connection.execute(f"SELECT key FROM results WHERE key IN ({places})", some)
            found.update(key for (key,) in rows)
        return found

    def add(self, record: Record) -> None:
        """Keep a record; on disk within a second or 500 records, or at ``flush``."""
        self._pending.append(_row(record))
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Commit if a second has passed or 500 records wait."""
        if len(self._pending) >= COMMIT_RECORDS or time.monotonic() - self._since > COMMIT_SECONDS:
            self.flush()

    def add_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Copy the rows of another file (``rows_of``), those that are here already left out."""
        with _plain_errors(self.path), self._transaction():
            self._connection.executemany(f"INSERT OR IGNORE INTO results ({_COLUMNS}) VALUES ({_PLACES})", rows)

    def flush(self) -> None:
        """Commit. Raises OSError where the disk is full; what was committed before stays."""
        if self._pending:
            with _plain_errors(self.path), self._transaction():
                self._connection.executemany(f"INSERT INTO results ({_COLUMNS}) VALUES ({_PLACES})", self._pending)
            self._pending = []
        self._since = time.monotonic()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self._connection.execute("ROLLBACK")
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._close.close()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        with exclusive_lock(lock):
            yield
    except ValueError as error:
        if "another run is writing" in str(error):
            raise ValueError(str(error).replace(f"writing to {path.parent}", f"writing to {path}")) from error
        raise


def _refuse_other_files(path: Path) -> None:
    """Raises ValueError for a file that SQLite did not write, before a lock is made beside it."""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(16)
        if start and start != b"SQLite format 3\0":
            raise ValueError(f"out: {path} is no database of results; name a new file")


@contextlib.contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as those that a user can mend."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            raise ValueError(f"out: {path} is damaged or no database ({error}); name a new file") from error
        raise OSError(f"out: {path} cannot be written ({error}); the same command goes on from here") from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is wrong, rather than locked or out of reach."""
    return "not a database" in str(error) or "malformed" in str(error)


def _row(record: Record) -> tuple[Any, ...]:
    structure = None if record.atoms is None else json.dumps(pack(record.atoms))
    values = _strict_json(record.values)
    return (
        record.key, record.id, record.source, record.status, record.task, record.reason, record.message,
        record.formula, record.n_atoms, values, structure, record.seconds, time.time(),
    )  # fmt: skip


def check_values(values: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError for values of a task that cannot be kept."""
    if taken := sorted(set(values) & set(FIXED)):
        raise ValueError(f"values of a task must not be named {', '.join(taken)}")
    if others := [name for name in values if not isinstance(name, str)]:
        raise TypeError(f"names of values must be text, got {others[0]!r}")
    json.dumps(values, default=_as_json)


def _strict_json(values: Mapping[str, Any]) -> str:
    """Values as JSON that SQLite reads, too: NaN and infinity, which it does not know, become null."""
    return json.dumps(json.loads(json.dumps(values, default=_as_json), parse_constant=lambda constant: None))


def _as_json(value: Any) -> Any:
    """Numpy's numbers and arrays as JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"values must be numbers, texts, flags or lists of them, got {type(value).__name__}")


def pack(atoms: Atoms) -> dict[str, Any]:
    """A structure as JSON, every bit kept."""
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
    }


def unpack(data: dict[str, Any]) -> Atoms:
    """The structure that ``pack`` packed."""
    return Atoms(data["numbers"], positions=data["positions"], cell=data["cell"], pbc=data["pbc"])


def settings_in(path: Path) -> dict[str, Any] | None:
    """Tasks and model of a file of results; None for a file in which no result can be, cut off at its very start."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return read_settings(connection)
        except sqlite3.OperationalError:  # no such table
            return None


def read_settings(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Tasks and model of a file of results."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'settings'").fetchone()
    return None if row is None else json.loads(row[0])


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[sqlite3.Connection]:
    """A file of results for reading, also while a run is writing. Raises ValueError if it is none."""
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"results: no file {place}")
    with contextlib.closing(sqlite3.connect(place)) as connection:
        try:
            connection.execute("SELECT key FROM results LIMIT 1")
            yield connection
        except sqlite3.DatabaseError as error:
            if _is_damage(error) or "no such" in str(error):
                raise ValueError(f"results: {place} holds no results of a screening or is damaged ({error})") from error
            raise OSError(f"results: {place} cannot be read ({error})") from error


def records(path: str | Path, *, structures: bool = True) -> Iterator[Record]:
    """The records of a file in the order in which they came."""
    with opened(path) as connection:
        for row in connection.execute(f"SELECT {_COLUMNS} FROM results ORDER BY number"):
            atoms = unpack(json.loads(row[10])) if structures and row[10] is not None else None
            yield Record(*[*row[:9], json.loads(row[9]), atoms, row[11]])


def rows_of(path: str | Path) -> Iterator[tuple[Any, ...]]:
    """Raw rows for ``Store.add_rows``."""
    with opened(path) as connection:
        yield from connection.execute(f"SELECT {_COLUMNS} FROM results ORDER BY number")
