"""What a newcomer runs first: every example, and the README's own lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_leaves_a_picture(script, tmp_path):
    run([str(script), "--quick"], tmp_path)
    picture = tmp_path / f"{script.stem}.png"
    assert picture.stat().st_size > 10_000


def test_readme_lines_give_the_number_they_state(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # the files the README reads
    for block in blocks:
        stated = re.findall(r"^(\w+) = .*# (-?\d+\.\d+)$", block, flags=re.MULTILINE)
        printed = run(["-c", block + "".join(f"\nprint(float({name}))" for name, _ in stated)], tmp_path)
        lines = printed.splitlines()[-len(stated) :] if stated else []
        for value, (_, number) in zip(lines, stated, strict=True):
            assert float(value) == pytest.approx(float(number), abs=10.0 ** -len(number.split(".")[1]))
