"""The folder of a run: what is left behind by a kill at the worst moments, damage, several shards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ase_potnet.training.data import labels, open_dataset
from ase_potnet.training.data.label_shards import Failure, Frame, Result, from_line, to_line
from ase_potnet.training.labelling import store as module
from ase_potnet.training.labelling.store import Store

FIXED: dict[str, Any] = {"calculator": {"class": "X"}, "recipe": {"seed": 0}, "input": {"path": "a"}}


def result(number: int) -> Result:
    rng = np.random.default_rng(number)
    if number % 5 == 4:
        return Failure(f"s{number}", "rattled", 0, number, number, "not converged (é)")
    n = 1 + number % 3
    return Frame(
        material_id=f"s{number}",
        group=f"g{number % 2}",
        kind="rattled",
        frame=0,
        seed=2**62 + number,
        index=number,
        numbers=rng.integers(1, 90, n),
        positions=rng.normal(size=(n, 3)) * 5,
        cell=np.diag(rng.uniform(8, 9, 3)),
        pbc=np.array([True, True, number % 2 == 0]),
        energy=float(rng.normal()),
        forces=rng.normal(size=(n, 3)),
        stress=None if number % 2 else np.diag(rng.normal(size=3)),
    )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAMES_A_SHARD", 10)


def fill(folder: Path, numbers: Iterator[int] | range) -> Store:
    with Store(folder, FIXED) as store:
        for number in numbers:
            store.add(result(number))
    return store


def assert_holds(folder: Path, numbers: range) -> None:
    """The folder holds these results, each once, to the last bit."""
    data = open_dataset(folder, progress=False)
    wanted = [result(number) for number in numbers]
    frames = {f"{r.material_id}/rattled/0": r for r in wanted if isinstance(r, Frame)}
    assert sorted(data.ids) == sorted(frames)
    assert len(data.broken) == len(wanted) - len(frames)
    for record in data:
        frame, found = frames[record.id], labels(record)
        for array, other in (
            (record.atoms.numbers, frame.numbers),
            (record.atoms.positions, frame.positions),
            (record.atoms.cell.array, frame.cell),
            (record.atoms.pbc, frame.pbc),
            (found.energy, frame.energy),
            (found.forces, frame.forces),
        ):
            np.testing.assert_array_equal(array, other)
        assert record.group == frame.group
        assert (found.stress is None) == (frame.stress is None)
        if frame.stress is not None:
            np.testing.assert_array_equal(found.stress, [*np.diagonal(frame.stress), 0, 0, 0])


def test_shards_and_journal_together_hold_everything(tmp_path: Path) -> None:
    store = fill(tmp_path / "out", range(34))
    assert (store.labelled, store.failed) == (28, 6)
    assert store.reasons == {"not converged": 6}
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 3
    assert len((tmp_path / "out" / "journal.jsonl").read_text().splitlines()) == 4
    assert_holds(tmp_path / "out", range(34))
    store = fill(tmp_path / "out", range(34, 41))
    assert (store.labelled, store.failed) == (33, 8)
    assert_holds(tmp_path / "out", range(41))
    with Store(tmp_path / "out", FIXED) as store:
        assert store.done == {(f"s{i}", 0) for i in range(41)}
        store.flush()
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == b""
    assert_holds(tmp_path / "out", range(41))


@pytest.mark.parametrize("number", [0, 1, 4])
def test_journal_lines_keep_every_bit(number: int) -> None:
    line = to_line(result(number))
    assert line.count("\n") == 1
    assert to_line(from_line(line)) == line


@pytest.mark.parametrize("cut", [1, 5, 200, -1])
def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path, cut: int) -> None:
    fill(tmp_path / "out", range(3))
    journal = tmp_path / "out" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + to_line(result(3)).encode()[:cut])
    assert_holds(tmp_path / "out", range(3))
    with Store(tmp_path / "out", FIXED) as store:
        assert len(store.done) == 3
        assert journal.read_bytes() == whole
        store.add(result(3))
    assert_holds(tmp_path / "out", range(4))


def test_a_kill_between_shard_and_journal_repeats_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "out", range(9))
    journal = tmp_path / "out" / "journal.jsonl"
    before = journal.read_bytes()
    fill(tmp_path / "out", range(9, 10))
    assert journal.read_bytes() == b""
    journal.write_bytes(before + to_line(result(9)).encode())  # the shard is there, the journal not yet emptied
    assert_holds(tmp_path / "out", range(10))
    store = fill(tmp_path / "out", range(10, 12))
    assert store.labelled + store.failed == 12
    assert_holds(tmp_path / "out", range(12))


def test_a_kill_while_a_shard_is_written_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path / "out", range(10))
    torn = tmp_path / "out" / "shards" / "shard_00000.npz.tmp"  # what a kill that no handler sees leaves behind
    torn.write_bytes(b"PK")
    assert_holds(tmp_path / "out", range(10))
    fill(tmp_path / "out", range(10, 11))
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == ["shard_00000.npz"]
    assert_holds(tmp_path / "out", range(11))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damaged_shards_are_reported(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "out", range(23))
    path = tmp_path / "out" / "shards" / "shard_00001.npz"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    damaged = {"cut": content[:middle], "flip": content, "empty": b"", "text": b"not a shard"}
    path.write_bytes(damaged[damage])
    data = open_dataset(tmp_path / "out", progress=False)
    assert len(data) == 8 + 3
    assert len(data.broken) == 2 + 1
    (reason,) = (reason for name, reason in data.broken if name == "shard_00001")
    assert str(path) in reason
    with pytest.raises(ValueError, match=r"shard_00001\.npz: damaged.*move it away"):
        Store(tmp_path / "out", FIXED)
    path.unlink()
    with Store(tmp_path / "out", FIXED) as store:
        assert len(store.done) == 13
        for number in range(10, 20):
            store.add(result(number))
    assert_holds(tmp_path / "out", range(23))


def test_damaged_journal_and_provenance_are_reported(tmp_path: Path) -> None:
    fill(tmp_path / "out", range(3))
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1][40:] + lines[2])
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 2, is damaged"):
        Store(tmp_path / "out", FIXED)
    (tmp_path / "out" / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json is damaged, or of something else"):
        Store(tmp_path / "out", FIXED)


@pytest.mark.parametrize("left", [["shards"], ["shards", "lock"], ["shards", "lock", "provenance.json.tmp"]])
def test_a_kill_at_the_very_start_leaves_a_usable_folder(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "out" / "shards").mkdir(parents=True)
    for name in left[1:]:
        (tmp_path / "out" / name).write_text("")
    fill(tmp_path / "out", range(3))
    assert_holds(tmp_path / "out", range(3))


def test_shards_of_unknown_origin_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    fill(tmp_path / "out", range(10))
    (tmp_path / "out" / "provenance.json").unlink()
    (tmp_path / "out" / "journal.jsonl").unlink()
    with pytest.raises(ValueError, match="holds other things than labels"):
        Store(tmp_path / "out", FIXED)


HOLDER = """
import sys, time
from pathlib import Path
from ase_potnet.training.labelling.store import Store
with Store(Path(sys.argv[1]), {"calculator": {"class": "X"}, "recipe": {"seed": 0}, "input": {"path": "a"}}):
    print("open", flush=True)
    time.sleep(1000)
"""


def test_one_writer_and_a_lock_that_ends_with_its_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            with pytest.raises(ValueError, match=rf"another run is writing to {out} \(process {holder.pid} on "):
                Store(out, FIXED)
        finally:
            holder.kill()
    with Store(out, FIXED) as store:
        store.add(result(0))
        with pytest.raises(ValueError, match="another run is writing"):
            Store(out, FIXED)
    assert_holds(out, range(1))
