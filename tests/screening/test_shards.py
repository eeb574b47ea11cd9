"""Many processes: killed workers, crystals that kill, a killed parent, Parsl."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk

from ase_potnet.screening import Summary, records, screen
from ase_potnet.screening.engine import PotentialEvaluator
from ase_potnet.screening.shards import screen_shards

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes by signals")
TASK = """
import os, pathlib, signal, time
class Deadly:
    name = "deadly"
    columns = {"pid": ""}
    def run(self, crystal):
        log = pathlib.Path(os.environ["DEADLY_LOG"])
        with log.open("a") as file:
            file.write(crystal.id + "\\n")
        if crystal.id == "killer" or (crystal.id == "once" and log.read_text().split().count("once") == 1):
            os.kill(os.getpid(), 9)
        if crystal.id == "stuck":  # beyond the reach of signals
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(600)
        time.sleep(float(os.environ.get("DEADLY_SLEEP", "0")))
        return {"pid": os.getpid()}
import dataclasses
Deadly = dataclasses.dataclass(Deadly)
"""
MODEL = """
import dataclasses, os
from ase_potnet.screening.engine import PotentialEvaluator
evaluate = PotentialEvaluator.evaluate
def deadly(self, structures, **options):
    if any(len(structure[0] if isinstance(structure, tuple) else structure) == 4 for structure in structures):
        os.kill(os.getpid(), 9)
    return evaluate(self, structures, **options)
PotentialEvaluator.evaluate = deadly
@dataclasses.dataclass
class Patch:
    name = "patch"
    columns = {"pid": ""}
    def run(self, crystal):
        return {"pid": os.getpid()}
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "deadly_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("DEADLY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return "deadly_task.Deadly"


def crystals() -> list[tuple[str, Atoms]]:
    return [(name, bulk("Cu", a=3.5 + 0.02 * n)) for n, name in enumerate(("a", "once", "b", "killer", "c", "d", "e"))]


def balanced(summary: Summary) -> None:
    assert summary.found == summary.before + summary.done + summary.failed + summary.duplicates


def test_workers_that_die(small: Path, deadly: str, tmp_path: Path) -> None:
    out = tmp_path / "r.db"
    broken = tmp_path / "broken.cif"
    broken.write_text("")
    summary = screen_shards([*crystals(), broken], deadly, out, model=small, processes=1, size=4)
    balanced(summary)
    assert (summary.found, summary.done, summary.failed) == (8, 6, 2)
    assert dict(summary.reasons) == {"bad file": 1, "process died": 1}
    found = {r.id: r for r in records(out)}
    assert len(found) == 8
    assert found["killer"].reason == "process died"
    assert found["once"].status == "done"
    assert not Path(f"{out}.shards").exists()
    again = screen_shards([*crystals(), broken], deadly, out, model=small, processes=1, size=4)
    assert (again.before, again.done, again.failed) == (8, 0, 0)


def test_workers_that_die_in_a_model(small: Path, deadly: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches die with everything in them, so crystals are evaluated one by one until the one that kills is found."""
    monkeypatch.setattr(PotentialEvaluator, "evaluate", PotentialEvaluator.evaluate)  # this process imports it, too
    (tmp_path / "deadly_model.py").write_text(MODEL)
    every = [(name, bulk("Cu", a=3.5 + 0.02 * n)) for n, name in enumerate("abcd")]
    every.insert(2, ("killer", bulk("Cu", a=3.6, cubic=True)))
    summary = screen_shards(every, ["deadly_model.Patch", "energy"], tmp_path / "r.db", model=small, processes=1)
    balanced(summary)
    assert (summary.found, summary.done, dict(summary.reasons)) == (5, 4, {"process died": 1})
    assert {r.id for r in records(tmp_path / "r.db") if r.reason} == {"killer"}


def test_a_task_that_no_signal_ends(small: Path, deadly: str, tmp_path: Path) -> None:
    every = [(name, bulk("Cu", a=3.5 + 0.02 * n)) for n, name in enumerate(("a", "stuck", "b"))]
    start = time.monotonic()
    summary = screen_shards(every, deadly, tmp_path / "r.db", model=small, processes=1, time_limit=0.5)
    assert time.monotonic() - start < 300
    balanced(summary)
    assert (summary.found, summary.done, dict(summary.reasons)) == (3, 2, {"process died": 1})
    assert {r.id: r.status for r in records(tmp_path / "r.db")} == {"a": "done", "b": "done", "stuck": "failed"}


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from ase.build import bulk
from ase_potnet.screening.shards import screen_shards
if __name__ == "__main__":
    crystals = [(f"c{n}", bulk("Cu", a=3.5 + 0.01 * n)) for n in range(12)]
    print(screen_shards(crystals, "deadly_task.Deadly", sys.argv[2], model=sys.argv[3], processes=1, size=6))
"""


def test_parent_that_is_killed(small: Path, deadly: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = tmp_path / "r.db", tmp_path / "log"
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), str(out), str(small)]
    monkeypatch.setenv("DEADLY_SLEEP", "0.7")
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 300
    while not log.exists() or len(log.read_text().split()) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("DEADLY_SLEEP", "0")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 crystals: ")
    kept = [r.id for r in records(out)]
    assert sorted(kept) == sorted(f"c{n}" for n in range(12))
    assert " by earlier runs" in done.stdout
    assert len(log.read_text().split()) <= 15  # nothing finished is done again


def test_what_a_run_before_has_left(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.db"
    folder = tmp_path / "r.db.shards"
    folder.mkdir()
    (folder / "000000.db").write_bytes(b"")  # its disk was full
    with screen(crystals()[:2], "energy", folder / "000001.db", model=small, device="cpu") as run:
        list(run)
    summary = screen_shards(crystals()[:3], "energy", out, model=small, device="cpu", processes=1)
    assert (summary.before, summary.done) == (2, 1)
    assert not folder.exists()
    folder.mkdir()
    with screen(crystals()[:2], "energy", folder / "000000.db", model=small, device="cpu") as run:
        list(run)
    with pytest.raises(ValueError, match=r"out: .*r\.db\.shards holds results made otherwise \(tasks"):
        screen_shards(crystals(), "relax,energy", out.rename(tmp_path / "r.old") and out, model=small, processes=1)


def test_two_parents_on_one_file(small: Path, deadly: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = tmp_path / "r.db", tmp_path / "log"
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), str(out), str(small)]
    monkeypatch.setenv("DEADLY_SLEEP", "0.5")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not log.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ValueError, match=r"another run is writing to .*r\.db"):
        screen_shards(crystals(), deadly, out, model=small, processes=1)
    with pytest.raises(ValueError, match=r"another run is writing to .*r\.db"):
        screen(crystals(), deadly, out, model=small)
    assert process.poll() is None
    printed, _ = process.communicate(timeout=300)
    assert printed.startswith("12 crystals: 12 done, 0 failed")
    assert sorted(r.id for r in records(out)) == sorted(f"c{n}" for n in range(12))
    assert len(log.read_text().split()) == 12


def test_parsl_with_a_worker_that_dies(small: Path, deadly: str, tmp_path: Path) -> None:
    pytest.importorskip("parsl", reason="needs Parsl")
    config = tmp_path / "parsl.yaml"
    config.write_text(
        "provider: local\nmax_workers_per_node: 2\naddress: 127.0.0.1\nheartbeat_period: 2\nheartbeat_threshold: 6\n"
        f"run_dir: {tmp_path / 'runs'}\nprovider_options: {{init_blocks: 1, max_blocks: 1}}\nencrypted: false\n"
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\nfrom ase.build import bulk\n"
        "from ase_potnet.screening.shards import screen_shards\n"
        "names = ('a', 'once', 'b', 'c', 'd', 'e')\n"
        "crystals = [(name, bulk('Cu', a=3.5 + 0.02 * n)) for n, name in enumerate(names)]\n"
        "options = {'model': sys.argv[3], 'config': sys.argv[4], 'size': 3}\n"
        "print(screen_shards(crystals, 'deadly_task.Deadly', sys.argv[2], **options))\n"
    )
    command = [sys.executable, str(script), str(tmp_path), str(tmp_path / "r.db"), str(small), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("6 crystals: 6 done, 0 failed")
    assert sorted(r.id for r in records(tmp_path / "r.db")) == sorted(("a", "once", "b", "c", "d", "e"))
    assert (tmp_path / "log").read_text().split().count("once") == 2  # killed, and done again
