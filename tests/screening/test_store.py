"""The file of results: whole records, nothing changed, one writer."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from ase_potnet.screening.store import DONE, FAILED, Record, Store, records

SETTINGS = {"tasks": [{"task": "energy", "forces": True}], "model": "abc"}


def record(number: int, status: str = DONE) -> Record:
    atoms = bulk("Cu", a=3.6 + number / 7)
    values = {"energy": -0.1 * number, "list": np.arange(3.0), "flag": np.bool_(True)}
    return Record(f"k{number}", f"id{number}", "memory", status, formula="Cu", n_atoms=1, values=values, atoms=atoms)


def test_every_bit_comes_back(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", SETTINGS) as store:
        store.add(record(1))
        store.add(record(2, FAILED))
        assert store.known(["k1", "k2", "k3"]) == {"k1", "k2"}
    one, two = records(tmp_path / "r.db")
    assert one.values == {"energy": -0.1, "list": [0.0, 1.0, 2.0], "flag": True}
    assert one.atoms is not None
    assert one.atoms.cell.array.tobytes() == record(1).atoms.cell.array.tobytes()  # type: ignore[union-attr]
    assert two.status == FAILED


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    values = {"x": 1.5, "nan": float("nan"), "list": [1.0, -np.inf], "array": np.array([np.nan, 2.0])}
    with Store(tmp_path / "r.db", SETTINGS) as store:
        store.add(replace(record(1), values=values))
    (one,) = records(tmp_path / "r.db")
    assert one.values == {"x": 1.5, "nan": None, "list": [1.0, None], "array": [None, 2.0]}
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        assert connection.execute("SELECT json_extract(data, '$.x') FROM results").fetchone() == (1.5,)


def test_results_cannot_be_changed(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", SETTINGS) as store:
        store.add(record(1))
    connection = sqlite3.connect(tmp_path / "r.db")
    for statement in ("DELETE FROM results", "UPDATE results SET id = 'other'"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(statement)
    connection.close()


def test_other_settings_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", SETTINGS) as store:
        store.add(Record("a", "a", "memory", DONE))
    with pytest.raises(ValueError, match=r"out: .* made otherwise .*model: 'abc' there, 'xyz' now"):
        Store(tmp_path / "r.db", SETTINGS | {"model": "xyz"})
    with Store(tmp_path / "r.db", SETTINGS):
        pass


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, though long enough to be looked at " * 40)
    with pytest.raises(ValueError, match="no database"):
        Store(tmp_path / "text.db", SETTINGS)
    assert not (tmp_path / "text.db.lock").exists()
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(ValueError, match="something else"):
        Store(tmp_path / "other.db", SETTINGS)
    with pytest.raises(ValueError, match="no results"):
        list(records(tmp_path / "other.db"))


def test_one_writer(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db", SETTINGS)
    with store, pytest.raises(ValueError, match=r"another run is writing to .*r\.db"):
        Store(tmp_path / "r.db", SETTINGS)
    with Store(tmp_path / "r.db", SETTINGS):
        pass


def test_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db", SETTINGS)
    store.add(record(0))
    store.flush()
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    for number in range(1, 200):
        store.add(record(number))
    with pytest.raises(OSError, match=r"full.*goes on"):
        store.flush()
    store._pending = []  # the process ends
    store.__exit__()
    assert [r.id for r in records(tmp_path / "r.db")] == ["id0"]
    with Store(tmp_path / "r.db", SETTINGS) as store:
        store.add(record(1))
    assert len(list(records(tmp_path / "r.db"))) == 2


WRITER = """
import sys
from ase_potnet.screening import store
from ase_potnet.screening.store import Record, Store
store.COMMIT_RECORDS = 3
with Store(sys.argv[1], {}) as kept:
    number = 0
    while True:
        kept.add(Record(f"k{number}", f"id{number}", "memory", "done", values={"x": [number] * 200}))
        number += 1
        if number == 30:
            print("busy", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    for round_ in range(3):
        target = tmp_path / f"{round_}.db"
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        time.sleep(0.02 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kept = list(records(target))
        expected = len(kept)
        assert expected >= 27
        assert [r.id for r in kept] == [f"id{n}" for n in range(expected)]
        assert all(r.values == {"x": [n] * 200} for n, r in enumerate(kept))
        with Store(target, {}) as store:
            assert store.known([f"k{expected}", "k0"]) == {"k0"}


def test_settings_of_a_run_without_a_result_do_not_stay(tmp_path: Path) -> None:
    with Store(tmp_path / "out.db", {"tasks": ["relax"]}):
        pass
    with Store(tmp_path / "out.db", {"tasks": ["energy"]}) as store:
        store.add(Record("a", "a", "memory", DONE))
    with pytest.raises(ValueError, match="results made otherwise"):
        Store(tmp_path / "out.db", {"tasks": ["relax"]})


def test_damaged_results_are_an_error_of_one_line(tmp_path: Path) -> None:
    with Store(tmp_path / "out.db", {}) as store:
        for number in range(2000):
            store.add(Record(str(number), "a" * 100, "memory", DONE, values={"text": "b" * 100}))
    content = bytearray((tmp_path / "out.db").read_bytes())
    for page in range(6, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = b"x" * 100
    (tmp_path / "out.db").write_bytes(content)
    with pytest.raises(ValueError, match=r"results: .*damaged"):
        list(records(tmp_path / "out.db"))


def test_a_lock_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path / "out.db", {}) as store:
        store.add(Record("a", "a", "memory", DONE))
    patient = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path: patient(path, timeout=0.01))
    with contextlib.closing(patient(tmp_path / "out.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match=r"results: .* cannot be read \(database is locked\)"):
            list(records(tmp_path / "out.db"))
    assert len(list(records(tmp_path / "out.db"))) == 1
