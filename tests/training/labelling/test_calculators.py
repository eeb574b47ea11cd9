"""Calculator specifications, and errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from ase_potnet.training.labelling.calculators import CalculatorSpec, describe, make_calculator, parse_spec

from .teachers import MODULE


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("a.b:C", {}),
        (" a.b:C , ", {}),
        ("a.b:C,x=1,y=2.5,z=true,w=null,name=fast,path=/a/b c.txt", None),
        ('a.b:C,{"x": 1, "y": [1, 2], "name": "a,b"}', {"x": 1, "y": [1, 2], "name": "a,b"}),
        ('a.b:C, name="1"', {"name": "1"}),
        ("a.b:C,url=x=y", {"url": "x=y"}),
    ],
)
def test_specs(text: str, arguments: dict[str, Any] | None) -> None:
    if arguments is None:
        arguments = {"x": 1, "y": 2.5, "z": True, "w": None, "name": "fast", "path": "/a/b c.txt"}
    assert parse_spec(text) == CalculatorSpec("a.b", "C", arguments)


def test_dotted_factories() -> None:
    assert parse_spec("a:B.c") == CalculatorSpec("a", "B.c", {})


@pytest.mark.parametrize("text", ["", "emt", "a.b.C", "a:b:c", ":C", "a:", "a-b:C", "a:C,5", "a:C,x y=2", "a:C,{x: 1}"])
def test_bad_specs(text: str) -> None:
    with pytest.raises(ValueError, match=r"calculator: "):
        parse_spec(text)


def test_making_calculators() -> None:
    assert isinstance(make_calculator(parse_spec("ase.calculators.emt:EMT")), EMT)
    calculator = make_calculator(parse_spec("ase.calculators.lj:LennardJones,sigma=2.5,rc=6"))
    assert isinstance(calculator, LennardJones)
    assert (calculator.parameters.sigma, calculator.parameters.rc) == (2.5, 6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module that only it has."""
    (tmp_path / "teachers_here.py").write_text(MODULE)
    (tmp_path / "broken_here.py").write_text("import no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # undone afterwards
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module:X", "cannot import no_such_module: ModuleNotFoundError"),
        ("broken_here:X", "cannot import broken_here: .*no_such_thing"),
        ("ase.calculators.emt:EMTT", "ase.calculators.emt has no EMTT"),
        ("ase.calculators.lj:LennardJones.x.y", "ase.calculators.lj has no LennardJones.x.y"),
        ("teachers_here:Logged", r"teachers_here:Logged\(\) failed: TypeError: .*log"),
        ("teachers_here:not_a_calculator", r"gave 3, which is no ASE calculator"),
        ("teachers_here:EnergyOnly", r"does not implement forces"),
    ],
)
def test_calculators_that_cannot_be_made(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"calculator: .*{message}"):
        make_calculator(parse_spec(text))


def test_description_holds_versions_and_checksums(folder: Path) -> None:
    import ase

    spec = parse_spec("ase.calculators.lj:LennardJones,sigma=2.5")
    text = describe(spec, make_calculator(spec))
    assert text["factory"] == "ase.calculators.lj:LennardJones"
    assert (text["class"], text["module"]) == ("LennardJones", "ase.calculators.lj")
    assert text["arguments"] == {"sigma": 2.5}
    assert text["packages"] == {"ase": ase.__version__}
    assert text["files_sha256"] == {}
    assert {"energy", "forces", "stress"} < set(text["properties"])
    (folder / "weights.bin").write_bytes(b"abc")
    spec = parse_spec("teachers_here:Logged,log=weights.bin")
    text = describe(spec, make_calculator(spec))
    assert text["packages"] == {}
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert text["files_sha256"]["weights.bin"] == abc
    assert len(text["files_sha256"]["teachers_here.py"]) == 64
