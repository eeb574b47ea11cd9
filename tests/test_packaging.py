"""The wheel holds the tree and nothing else; what is said in two places is the same in both."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DIST_INFO = f"ase_potnet-{VERSION}.dist-info"
PACKAGES = {"ase_potnet": "ase_potnet", "training": "ase_potnet/training"}  # folder in the tree: in the wheel
OTHER_FOLDERS = ["tests", "examples", "benchmarks", "docs"]  # none of these may reach the wheel
JUNK = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, unpacked."""
    tree, dist, unpacked = (tmp_path_factory.mktemp(name) for name in ("tree", "dist", "unpacked"))
    for folder in [*PACKAGES, *OTHER_FOLDERS]:
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tree / folder, ignore=JUNK)
    for file in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / file, tree / file)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(tree)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as content:
        content.extractall(unpacked)
    return unpacked


def files(folder: Path) -> set[str]:
    """All files below the folder, as relative paths."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_wheel_holds_exactly_the_tree(wheel: Path, tmp_path: Path) -> None:
    for folder, place in PACKAGES.items():
        shutil.copytree(ROOT / folder, tmp_path / place, ignore=JUNK, dirs_exist_ok=True)
    packaged = {name for name in files(wheel) if not name.startswith(f"{DIST_INFO}/")}
    assert packaged == files(tmp_path)
    assert "ase_potnet/py.typed" in packaged


def test_wheel_has_two_top_level_entries(wheel: Path) -> None:
    assert {path.name for path in wheel.iterdir()} == {"ase_potnet", DIST_INFO}


def test_wheel_carries_the_licence(wheel: Path) -> None:
    assert (wheel / DIST_INFO / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_import_is_light(wheel: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import ase_potnet, ase_potnet.training
heavy = {"torch", "numpy", "scipy", "ase", "e3nn", "vesin"}.intersection(sys.modules)
assert not heavy, heavy
print(ase_potnet.__version__, *ase_potnet.__path__, *ase_potnet.training.__path__, sep="\\n")
"""
    command = [sys.executable, "-I", "-c", code, str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    package = wheel / "ase_potnet"
    assert result.stdout.splitlines() == [VERSION, str(package), str(package / "training")]


def test_a_checkout_has_its_training_package() -> None:
    code = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path.insert(0, sys.argv[1])
import ase_potnet.training.labelling
print(ase_potnet.training.labelling.__file__)
"""
    result = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == str(ROOT / "training" / "labelling" / "__init__.py"), result.stderr


def first_match(pattern: str, file: str) -> str:
    """The first group of the pattern's first match in a file of the tree, ^ and $ matching at lines."""
    match = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None, f"{file} has nothing like {pattern}"
    return match[1]


def test_versions_agree() -> None:
    assert first_match(r"^## \[(\d[^\]]*)\]", "CHANGELOG.md") == VERSION
    assert first_match(r"^version: (.+)$", "CITATION.cff") == VERSION


def test_ci_runs_the_readme_test_command() -> None:
    command = first_match(r"^test_command='(.+)'$", ".ci/run")
    assert f"\n```bash\n{command}\n```\n" in (ROOT / "README.md").read_text(encoding="utf-8")
