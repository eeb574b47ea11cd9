"""`potnet screen` as a person types it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from ase_potnet.cli import main
from ase_potnet.screening import Ask, records, shards
from ase_potnet.screening.engine import Steps
from ase_potnet.screening.tasks import Crystal, settings_of, units


def test_screen(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "copper.cif", bulk("Cu", a=4.0, cubic=True))
    (tmp_path / "broken.cif").write_text("")
    command = ["screen", str(tmp_path), "--out", str(tmp_path / "out" / "r.db"), "--model", str(model), "--do", "relax"]
    command += ["--set", "relax.fmax=0.05", "--export", str(tmp_path / "r.csv"), "--device", "cpu"]
    for expected in ("2 crystals: 1 done, 1 failed\n  1 bad file", "2 crystals: 0 done, 0 failed, 2 by earlier runs"):
        with pytest.raises(SystemExit) as end:
            main(command)
        assert not end.value.code
        assert expected in capsys.readouterr().out
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3
    with pytest.raises(SystemExit) as end:
        main([*command[:-4], "--set", "fmax=1"])
    assert end.value.code == 2
    assert "--set: wanted task.option=value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "module", "extra"),
    [
        ("relax", "spglib", "phonons"),
        ("elastic", "spglib", "phonons"),
        ("hull", "pymatgen.analysis.phase_diagram", "pymatgen"),
        ("energy --unique structure", "pymatgen.analysis.structure_matcher", "pymatgen"),
    ],
)
def test_a_package_that_is_missing(
    task: str,
    module: str,
    extra: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    write(tmp_path / "copper.cif", bulk("Cu", a=4.0))
    (tmp_path / "reference.csv").write_text("formula,energy_per_atom\nCu,-0.5\n")
    command = ["screen", str(tmp_path / "copper.cif"), "--out", str(tmp_path / "r.db"), "--model", str(model)]
    command += ["--do", *task.split(), "--device", "cpu"]
    command += ["--set", f"hull.reference={tmp_path / 'reference.csv'}"] if task == "hull" else []
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert f"pip install 'ase-potnet[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / "r.db").exists()


def test_screening_leaves_its_own_export_out(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "copper.extxyz", [bulk("Cu", a=a) for a in (3.6, 3.7)])
    monkeypatch.chdir(tmp_path)
    command = ["screen", ".", "*.extxyz", "--out", "r.db", "--model", str(small), "--do", "energy", "--device", "cpu"]
    for expected in ("2 crystals: 2 done, 0 failed", "2 crystals: 0 done, 0 failed, 2 by earlier runs"):
        with pytest.raises(SystemExit) as end:
            main([*command, "--export", "r.extxyz", "--export", "r.json"])
        assert not end.value.code
        assert expected in capsys.readouterr().out
    assert (tmp_path / "r.extxyz").read_text().count("Lattice=") == 2


def test_a_parsl_configuration_needs_no_processes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def pool(config: Path) -> shards._Processes:
        asked.append(config)
        return shards._Processes(1)

    monkeypatch.setattr(shards, "_parsl", pool)
    write(tmp_path / "copper.cif", bulk("Cu", a=3.6))
    command = ["screen", str(tmp_path / "copper.cif"), "--out", str(tmp_path / "r.db"), "--model", str(small)]
    with pytest.raises(SystemExit) as end:
        main([*command, "--do", "energy", "--config", str(tmp_path / "parsl.yaml"), "--device", "cpu"])
    assert not end.value.code, capsys.readouterr().err
    assert asked == [tmp_path / "parsl.yaml"]
    assert "1 crystals: 1 done" in capsys.readouterr().out


@dataclass(frozen=True)
class Squeeze:
    """A task of one's own, as in docs/screening.md."""

    strain: float = 0.01
    name: ClassVar[str] = "squeeze"
    columns: ClassVar[dict[str, str]] = {"squeezed_energy": "eV"}

    def run(self, crystal: Crystal) -> Steps:
        atoms = crystal.atoms.copy()
        atoms.set_cell(atoms.cell * (1 - self.strain), scale_atoms=True)
        (result,) = yield Ask([atoms], forces=False, stress=False)
        return {"squeezed_energy": result.energy}


def test_units_of_a_task_that_is_not_registered() -> None:
    assert units([settings_of(Squeeze())]) == {"squeezed_energy": "eV"}


def test_a_task_in_the_current_folder(small: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "screening.md").read_text(encoding="utf-8")
    (tmp_path / "own_tasks.py").write_text(
        next(block.split("```")[0] for block in page.split("```python\n") if "class Squeeze" in block)
    )
    write(tmp_path / "copper.cif", bulk("Cu", a=3.6))
    command = ["screen", "copper.cif", "--out", "r.db", "--model", str(small), "--do", "own_tasks.Squeeze"]
    command += ["--set", "own_tasks.Squeeze.strain=0.02", "--device", "cpu"]
    script = f"from ase_potnet.cli import main\nmain({command!r})"
    (tmp_path / "bin").mkdir()  # a command outside of the current folder, which Python then does not search
    (tmp_path / "bin" / "potnet.py").write_text(script)
    done = subprocess.run([sys.executable, "bin/potnet.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "r.db")
    assert np.isfinite(record.values["squeezed_energy"])


FULL = """
import resource, sys
from ase_potnet.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of the size of a file")
def test_disk_full_in_a_run_that_goes_on_later(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.db"
    write(tmp_path / "many.extxyz", [bulk("Cu", a=a) for a in np.linspace(3.4, 4.0, 700)])
    command = ["screen", str(tmp_path / "many.extxyz"), "--out", str(out), "--model", str(small), "--do", "energy"]
    command += ["--device", "cpu"]
    full = [sys.executable, "-c", FULL, str(250_000), *command]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "the same command goes on from here" in done.stderr
    assert "Traceback" not in done.stderr
    kept = len(list(records(out)))
    assert kept < 700
    again = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom ase_potnet.cli import main\nmain(sys.argv[1:])", *command],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stdout.startswith(f"700 crystals: {700 - kept} done, 0 failed")
    assert sorted(r.id for r in records(out)) == sorted(f"many-{n}" for n in range(700))


class Plain:
    """A task without options is a class like any other."""

    name: ClassVar[str] = "plain"
    columns: ClassVar[dict[str, str]] = {}

    def run(self, crystal: Crystal) -> dict[str, int]:
        return {"atoms": len(crystal.atoms)}


def test_a_task_without_options(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "copper.cif", bulk("Cu", a=3.6))
    command = ["screen", str(tmp_path / "copper.cif"), "--out", str(tmp_path / "r.db"), "--model", str(small)]
    command += ["--do", f"{__name__}.Plain", "--device", "cpu", "--export", str(tmp_path / "new" / "r.csv")]
    (tmp_path / "blocked.json").mkdir()
    with pytest.raises(SystemExit) as end:
        main([*command, "--export", str(tmp_path / "blocked.json"), "--export", str(tmp_path / "r.extxyz")])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert "1 crystals: 1 done" in captured.out
    assert "blocked.json" in captured.err
    assert "atoms" in (tmp_path / "new" / "r.csv").read_text()
    assert (tmp_path / "r.extxyz").is_file()
