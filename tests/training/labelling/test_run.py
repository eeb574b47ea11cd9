"""Labelling runs: right labels, any number of processes, kills, failures, locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import write

from ase_potnet.pretrained import model_info
from ase_potnet.training.arrays import structure_arrays
from ase_potnet.training.data import Dataset, Record, group_split, labels, open_dataset
from ase_potnet.training.labelling import Kind, Limits, Recipe, Summary, duration, label, load_recipe
from ase_potnet.training.labelling.calculators import describe, make_calculator, parse_spec
from ase_potnet.training.labelling.run import fingerprint

from .teachers import MODULE

LJ = "ase.calculators.lj:LennardJones,sigma=2.2,rc=6.0"
EMT_SPEC = "ase.calculators.emt:EMT"
SMALL = """
frames: 16
kinds:
  strained: {volume: [0.9, 1.1], shear: 0.02}
  rattled: {sigma: [0.01, 0.1]}
  doubled: {supercell: {atoms: [2, 4]}, sigma: 0.05}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the tests' calculators."""
    (tmp_path / "teachers_there.py").write_text(MODULE)
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def metals() -> Dataset:
    return dataset([bulk(s) for s in ("Cu", "Ni", "Al", "Pd")] + [bulk("CuAu", "cesiumchloride", a=3.2)])


def dataset(structures: list[Atoms]) -> Dataset:
    return Dataset(Record(f"s{i}", atoms, {}) for i, atoms in enumerate(structures))


def run(source: Any, out: str, calculator: str, **options: Any) -> Summary:
    return label(source, out, calculator, progress=False, **options)


def content(out: str | Path) -> dict[str, Any]:
    """Every number of every frame, by id; failures by id with their reason."""
    data = open_dataset(out, progress=False)
    frames: dict[str, Any] = dict(data.broken)
    for record in data:
        found, atoms = labels(record), record.atoms
        assert found.energy is not None
        assert found.forces is not None
        arrays = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, found.forces, found.stress)
        stored = [None if array is None else array.tolist() for array in arrays]
        frames[record.id] = (found.energy, record.group, atoms.info["kind"], *stored)
    return frames


# Labels


def test_labels_are_the_calculators(folder: Path) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.set_cell(crystal.cell.array @ [[1.02, 0.03, 0.01], [0, 0.99, 0.02], [0, 0, 1]], scale_atoms=True)
    slab, water = fcc111("Cu", (1, 1, 3), vacuum=5.0), molecule("H2O")
    source = dataset([crystal, slab, water])
    assert run(source, "out", EMT_SPEC).complete
    data = open_dataset("out", progress=False)
    assert sorted(data.ids) == ["s0/original/0", "s1/original/0", "s2/original/0"]
    for record, atoms in zip(source, (crystal, slab, water), strict=True):
        frame = data.record(f"{record.id}/original/0")
        assert frame.group == record.id
        assert frame.atoms.info == {"material_id": record.id, "kind": "original"}
        np.testing.assert_array_equal(frame.atoms.positions, atoms.positions)
        np.testing.assert_array_equal(frame.atoms.cell.array, atoms.cell.array)
        np.testing.assert_array_equal(frame.atoms.pbc, atoms.pbc)
        atoms.calc = EMT()
        found = labels(frame)
        assert found.energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(found.forces, atoms.get_forces())
        if atoms.pbc.all():
            np.testing.assert_array_equal(found.stress, atoms.get_stress())
            np.testing.assert_allclose(found.stress, finite_difference_stress(frame.atoms), atol=1e-6)
        else:
            assert found.stress is None


def finite_difference_stress(atoms: Atoms, step: float = 1e-4) -> np.ndarray[Any, Any]:
    """+(1/V) dE/dε with EMT, Voigt order xx yy zz yz xz xy."""
    stress = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            moved.calc = EMT()
            energies.append(moved.get_potential_energy())
        stress.append((energies[0] - energies[1]) / (2 * step * atoms.get_volume()))
    return np.array(stress)


@pytest.mark.parametrize("name", ["FullStress", "NoStress", "FreeEnergy"])
def test_other_shapes_of_labels(name: str) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.0)
    crystal.rattle(0.1, seed=1)
    assert run(dataset([crystal]), "out", f"teachers_there:{name},sigma=2.2,rc=6.0").labelled == 1
    found = labels(open_dataset("out", progress=False)[0])
    crystal.calc = LennardJones(sigma=2.2, rc=6.0)
    assert found.energy == crystal.get_potential_energy()
    if name == "NoStress":
        assert found.stress is None
    else:
        np.testing.assert_array_equal(found.stress, crystal.get_stress())


def test_one_or_four_processes_give_the_same_frames(metals: Dataset) -> None:
    options = {"recipe": "default", "frames": 8, "seed": 3}
    one = run(metals, "one", LJ, **options)
    four = run(metals, "four", LJ, processes=4, **options)
    assert one.expected == four.expected == 40
    assert one.labelled == four.labelled > 25
    assert content("one") == content("four")
    kinds = Counter(name.split("/")[1] for name in content("one"))
    assert len(kinds) >= 6


def test_a_frame_does_not_depend_on_what_else_is_labelled(metals: Dataset) -> None:
    recipe = load_recipe("small.yaml", frames=4, seed=9)
    run(metals, "all", EMT_SPEC, recipe=recipe)
    run(metals.subset(["s3", "s1"]), "two", EMT_SPEC, recipe=recipe)
    everything, two = content("all"), content("two")
    assert len(two) == 8
    assert two.items() <= everything.items()


def test_groups_keep_the_frames_of_one_crystal_together(metals: Dataset, tmp_path: Path) -> None:
    run(metals, "out", EMT_SPEC, recipe="small.yaml", frames=4)
    data = open_dataset("out", progress=False)
    split = group_split(data, fractions=(0.6, 0.2, 0.2))
    parents = [{name.split("/")[0] for name in part} for part in (split.train, split.val, split.test)]
    assert sum(map(len, parents)) == 5
    exported = open_dataset(data.to_extxyz(tmp_path / "all.extxyz.gz"), progress=False)
    assert exported.ids == data.ids
    for before, after in zip(data, exported, strict=True):
        assert (before.group, before.atoms.info) == (after.group, {k: after.atoms.info[k] for k in before.atoms.info})
        np.testing.assert_allclose(labels(after).forces, labels(before).forces, atol=1e-8)
        np.testing.assert_allclose(labels(after).stress, labels(before).stress, atol=1e-12)


def test_groups_of_the_input_are_kept() -> None:
    source = Dataset([Record("a", bulk("Cu"), {}, "g"), Record("b", bulk("Ni"), {}, "g")])
    run(source, "out", EMT_SPEC)
    assert {record.group for record in open_dataset("out", progress=False)} == {"g"}


def test_second_frames_are_of_the_family_and_the_group_of_the_first(metals: Dataset) -> None:
    run(metals, "first", EMT_SPEC, recipe="phonon", frames=3)
    run("first", "second", EMT_SPEC, recipe="displaced")
    both = open_dataset(["first", "second"], progress=False)
    family = structure_arrays(both).family
    assert sorted(np.bincount(family)) == [2] * (len(both) // 2)
    for number in range(family.max() + 1):
        one, other = (both[row] for row in np.flatnonzero(family == number))
        assert one.group == other.group
        assert 0.001 < np.abs(one.atoms.positions - other.atoms.positions).mean() < 0.03


# Provenance, selection


def test_provenance_and_selection_of_real_crystals() -> None:
    sample = Path(__file__).resolve().parents[2] / "data" / "mp_sample.extxyz"
    done = run(sample, "out", LJ, elements=["Sr", "Co", "Se", "O"], recipe="phonon", frames=2)
    provenance = json.loads(Path("out/provenance.json").read_text(encoding="utf-8"))
    used = {record.group for record in open_dataset("out", progress=False)} | {
        name.split("/")[0] for name, _ in open_dataset("out", progress=False).broken
    }
    assert "mp-1147648" in used
    assert len(used) * 2 == done.expected == provenance["frames"]["expected"]
    assert provenance["calculator"]["arguments"] == {"sigma": 2.2, "rc": 6.0}
    assert Recipe.model_validate(provenance["recipe"]) == load_recipe("phonon", frames=2)
    assert provenance["input"]["path"] == str(sample)
    assert len(provenance["input"]["sha256"]) == 64
    assert [r["complete"] for r in provenance["runs"]] == [True]
    assert {"python", "ase-potnet", "ase", "numpy"} == set(provenance["runs"][0]["software"])
    with np.load("out/shards/shard_00000.npz") as shard:
        inside = json.loads(str(shard["provenance"]))
    assert inside == {key: provenance[key] for key in ("calculator", "recipe", "input")}
    with pytest.raises(ValueError, match="none of 64 structures has only these elements"):
        run(sample, "none", LJ, elements=["He"])


def test_another_calculator_recipe_or_input_is_refused(metals: Dataset) -> None:
    run(metals, "out", LJ)
    before = content("out")
    for options, message in (
        (
            {"calculator": "ase.calculators.lj:LennardJones,sigma=2.3,rc=6.0"},
            r"calculator\.arguments\.sigma: 2\.2 there, 2\.3",
        ),
        ({"seed": 1}, r"recipe\.seed: 0 there, 1 now"),
        ({"source": metals[:3]}, r"input\.structures: 5 there, 3 now"),
    ):
        arguments = {"source": metals, "calculator": LJ} | options
        with pytest.raises(ValueError, match=f"out: out holds labels made otherwise.*{message}"):
            label(out="out", progress=False, **arguments)  # type: ignore[arg-type]
    assert content("out") == before


def test_other_folders_are_left_alone(metals: Dataset, folder: Path) -> None:
    (folder / "work").mkdir()
    (folder / "work" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds other things than labels"):
        run(metals, "work", LJ)
    assert [path.name for path in (folder / "work").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes: wanted at least 1"),
        ({"threads": 0}, "threads: wanted at least 1"),
        ({"limit": "soon"}, "limit: wanted a time"),
        ({"calculator": "no_such_module:X"}, "cannot import no_such_module"),
        ({"calculator": "teachers_there:die"}, r"process died at the start \(exit code 7\)"),
        ({"calculator": "emt"}, "wanted module:factory"),
        ({"recipe": "nope"}, "recipe: wanted"),
        ({"structures": 0}, "structures: wanted at least 1"),
    ],
)
def test_bad_arguments(metals: Dataset, folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label(**({"source": metals, "out": "out", "calculator": LJ, "progress": False} | options))
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (5, 5), ("30s", 30), ("2h", 7200), ("1.5 m", 90), ("1d", 86400)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 hours", "-1h", "0", "nan"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="limit: wanted a time"):
        duration(text)


# Failures


def test_failures_are_recorded_with_their_reasons() -> None:
    symbols = ["Cu", "Ni", "Pd", "Pt", "Ag", "Au", "Al", "Pb", "Rh"]
    structures = [bulk(symbol) for symbol in symbols] + [bulk("Rh", cubic=True).repeat(2), bulk("Rh", a=0.6)]
    recipe = Recipe(kinds={"original": Kind()}, limits=Limits(max_force=49.0, max_atoms=8))
    done = run(dataset(structures), "out", "teachers_there:Faulty,sigma=2.2,rc=6.0", recipe=recipe)
    assert (done.labelled, done.failed, done.complete) == (1, 10, True)
    reasons = {int(name.split("/")[0][1:]): reason for name, reason in open_dataset("out", progress=False).broken}
    assert reasons == {
        0: "RuntimeError: SCF blew up",
        1: "RuntimeError: not converged",
        2: "forces not finite",
        3: "force above 49 eV/Å (50.0)",
        4: "the process died (exit code 3)",
        5: "SystemExit: licence expired",
        6: "stress not finite",
        7: "PropertyNotImplementedError: no lead",
        9: "more than 8 atoms (32)",
        10: "atoms nearer than 0.5 Å",
    }
    assert done.reasons["force above 49 eV/Å"] == 1
    assert json.loads(Path("out/provenance.json").read_text(encoding="utf-8"))["frames"]["failed"] == 10
    again = run(dataset(structures), "out", "teachers_there:Faulty,sigma=2.2,rc=6.0", recipe=recipe)
    assert (again.new, again.labelled, again.failed, again.complete) == (0, 1, 10, True)


def test_workers_have_the_threads_asked_for(metals: Dataset) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    run(metals[:1], "one", "teachers_there:Threads")
    run(metals[:1], "three", "teachers_there:Threads", threads=3)
    assert [labels(open_dataset(out, progress=False)[0]).energy for out in ("one", "three")] == [1.0, 3.0]
    assert os.environ.get("OMP_NUM_THREADS") == before


# Interruptions

SCRIPT = """
from ase_potnet.training.labelling import label
if __name__ == "__main__":
    done = label("in.extxyz", "out", "teachers_there:Logged,log=calls,seconds=0.03", recipe="small.yaml",
                 processes=2, progress=False)
    print(done.new, done.complete)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "script.py"], cwd=folder, text=True, **pipes)  # type: ignore[call-overload]


def calls(folder: Path) -> list[str]:
    log = folder / "calls.txt"
    return log.read_text().splitlines() if log.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_runs_go_on_and_repeat_nothing(folder: Path, metals: Dataset) -> None:
    write(folder / "in.extxyz", [record.atoms for record in metals])
    for n in (15, 40):
        process = start(folder)
        wait_for(lambda n=n: len(calls(folder)) >= n)  # type: ignore[misc]
        process.kill()
        process.communicate()
        workers = {int(line.split()[0]) for line in calls(folder)}
        wait_for(lambda workers=workers: not any(map(is_running, workers)), 30)  # type: ignore[misc]
    broken_off = (folder / "out" / "journal.jsonl").read_bytes()
    assert broken_off.count(b"\n") >= 35
    partial = content("out")  # a run that is not finished can be read
    process = start(folder)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert printed.split() == [str(80 - len(partial)), "True"]
    assert partial.items() <= content("out").items()
    assert 80 <= len(calls(folder)) <= 80 + 2 * 2  # frames under way in two processes at two kills
    plain = run("in.extxyz", "plain", EMT_SPEC, recipe="small.yaml")
    assert plain.complete
    assert content("plain") == content("out")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()  # a zombie that nobody has waited for
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_run_in_order(folder: Path, metals: Dataset, number: signal.Signals) -> None:
    write(folder / "in.extxyz", [record.atoms for record in metals])
    process = start(folder)
    wait_for(lambda: len(calls(folder)) >= 10)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    new, complete = printed.split()
    assert complete == "False"
    assert 10 <= int(new) == len(calls(folder)) == len(content("out")) < 80
    assert (folder / "out" / "journal.jsonl").read_bytes() == b""


def test_calculators_on_files_have_a_folder_and_can_end_their_programs(metals: Dataset) -> None:
    found = run(metals[:2], "out", "teachers_there:WithFolder")
    assert (found.labelled, found.failed) == (2, 0), found.reasons


def test_programs_of_a_calculator_end_with_the_run(folder: Path, metals: Dataset) -> None:
    write(folder / "in.extxyz", [record.atoms for record in metals])
    spec = f"teachers_there:WithFolder,program={folder / 'program'}"
    script = SCRIPT.replace("teachers_there:Logged,log=calls,seconds=0.03", spec)
    (folder / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, "script.py"], cwd=folder, stderr=subprocess.DEVNULL)
    wait_for(lambda: (folder / "program").exists() and (folder / "program").read_text() != "")
    program = int((folder / "program").read_text())
    assert is_running(program)
    process.kill()
    process.wait()
    wait_for(lambda: not is_running(program), 30)


def test_magnetic_moments_and_parameters_tell_runs_apart(metals: Dataset) -> None:
    iron = [bulk("Fe", cubic=True) for _ in range(2)]
    iron[1].set_initial_magnetic_moments([2, -2])
    assert fingerprint(dataset(iron[:1])) != fingerprint(dataset(iron[1:]))
    spec = parse_spec("ase_potnet:PotNetCalculator")
    parameters = describe(spec, make_calculator(spec))["parameters"]
    assert parameters["sha256"] == model_info("default").sha256
    json.dumps(parameters)


def test_time_limit_stops_and_the_next_run_goes_on(metals: Dataset) -> None:
    options: dict[str, Any] = {"recipe": "small.yaml", "frames": 200, "processes": 2}
    slow = "teachers_there:Logged,log=calls,seconds=0.05"
    for limit in (4, 8, 16, 32, 64):  # the start of the processes counts, and may take long
        first = run(metals, "out", slow, limit=f"{limit}s", **options)
        if first.new:
            break
    assert first.seconds < limit + 20
    assert not first.complete
    assert 0 < first.new < 1000
    assert "the same command goes on" in str(first)
    ids = set(content("out"))
    frames = Counter(int(name.split("/")[-1]) for name in ids)
    assert all(frames[i] == 5 for i in range(max(frames) - 6))  # frame 0 of every structure, then frame 1, ...
    second = run(metals, "out", slow, limit=limit, **options)
    assert second.labelled == first.labelled + second.new
    assert ids <= set(content("out"))


def test_entries_that_cannot_be_read_are_told(folder: Path) -> None:
    (folder / "mix").mkdir()
    bulk("Cu").write("mix/Cu.cif")
    Path("mix/bad.cif").write_text("data_bad\n_cell_length_a what\n")
    summary = label("mix", "out", EMT_SPEC, recipe="none", progress=False)
    assert (summary.labelled, summary.failed) == (1, 0)
    assert "1 entries of the source could not be read:\n    bad" in str(summary)
    provenance = json.loads(Path("out/provenance.json").read_text())
    assert len(provenance["frames"]["unreadable"]) == 1
