"""`potnet screen` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from ase_potnet.cli import main


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
