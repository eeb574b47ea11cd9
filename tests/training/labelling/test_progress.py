"""What a run shows."""

from __future__ import annotations

import pytest

from ase_potnet import progress as module
from ase_potnet.progress import clock, describe, show


def test_text() -> None:
    assert describe(total=1000, finished=400, failed=1, new=200, seconds=100) == "2 a second, 1 failed, 5 min left"
    assert describe(total=1000, finished=400, failed=0, new=0, seconds=1).endswith("? left")
    assert [clock(x) for x in (45, 719, 12240, 1e6)] == ["45 s", "12 min", "3.4 h", "11.6 d"]


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with show(100, 40, True) as report:
        report(41, 0)
    assert capsys.readouterr().err == ""  # the first minute
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with show(100, 40, True) as report:
        report(50, 3)
    line = capsys.readouterr().err
    assert "labelling 50/100 frames" in line
    assert "3 failed" in line
    assert line.count("\n") == 1


def test_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    with show(100, 40, "always") as report:
        report(50, 3)
    shown = capsys.readouterr().err
    assert "50/100" in shown
    assert "3 failed" in shown


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with show(100, 0, False) as report:
        report(50, 3)
    assert capsys.readouterr().err == ""
