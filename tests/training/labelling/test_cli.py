"""`potnet label`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ase_potnet.cli import main
from ase_potnet.training.data import labels, open_dataset

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "mp_sample.extxyz"
LJ = "ase.calculators.lj:LennardJones,sigma=2.0,rc=6.0"


def run(*arguments: object) -> int:
    try:
        main(["label", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_label_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, exported = tmp_path / "out", tmp_path / "all.extxyz"
    options = ("-c", LJ, "-p", "phonon", "--frames", 2, "--elements", "Sr,Co,Se,O", "--export", exported, "--seed", 5)
    assert run(SAMPLE, out, *options) == 0
    printed = capsys.readouterr()
    assert "frames labelled" in printed.out
    assert f"written: {exported}" in printed.out
    data, copy = (open_dataset(path, progress=False) for path in (out, exported))
    assert data.ids == copy.ids
    for before, after in zip(data, copy, strict=True):
        assert labels(after).energy == pytest.approx(labels(before).energy, rel=1e-12)
        np.testing.assert_allclose(labels(after).forces, labels(before).forces, atol=1e-7)
    provenance = json.loads((tmp_path / "all.extxyz.provenance.json").read_text(encoding="utf-8"))
    assert provenance["recipe"]["seed"] == 5
    assert provenance["calculator"]["class"] == "LennardJones"


def test_folder_of_the_export_is_made_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, exported = tmp_path / "out", tmp_path / "sub" / "all.extxyz"
    assert run(SAMPLE, out, "-c", LJ, "--structures", 2, "--export", exported) == 0
    assert len(open_dataset(exported, progress=False)) == 2
    (tmp_path / "file").touch()
    assert run(SAMPLE, tmp_path / "other", "-c", LJ, "--export", tmp_path / "file" / "all.extxyz") == 2
    assert run(SAMPLE, tmp_path / "other", "-c", LJ, "--export", tmp_path) == 2
    assert not (tmp_path / "other").exists()  # nothing was labelled


@pytest.mark.parametrize("option", ["--time-limit", "--limit"])
def test_time_limit(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SAMPLE, tmp_path / "out", "-c", LJ, option, "0.000001s") == 0
    assert "not finished" in capsys.readouterr().out


def test_several_inputs(tmp_path: Path) -> None:
    again = SAMPLE.with_name("jarvis_sample.json")
    assert run(SAMPLE, again, tmp_path / "out", "-c", LJ, "--structures", 66) == 0
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["input"]["structures"] == 66


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ((SAMPLE, "-c", LJ), "IN, OUT: wanted structures"),
        ((SAMPLE, tmp_path / "out", "-c", "nothing:at.all"), "calculator: cannot import nothing"),
        ((SAMPLE, tmp_path / "out", "-c", LJ, "-p", "none", "--time-limit", "soon"), "limit: wanted a time"),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_nothing_labelled_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SAMPLE, tmp_path / "out", "-c", "ase.calculators.emt:EMT", "--elements", "Sr,Co,Se,O") == 1
    assert "NotImplementedError: No EMT-potential for " in capsys.readouterr().out
