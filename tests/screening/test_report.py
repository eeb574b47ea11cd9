"""The page of a screening: complete, without network, and it works in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk

from ase_potnet.cli import main
from ase_potnet.screening import screen
from ase_potnet.screening.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
CLICKS = """
<script>
document.querySelector("button[data-column=energy_per_atom]").click();
const rows = [...document.querySelectorAll("#table tbody tr")];
const column = D.columns.indexOf("energy_per_atom");
const energies = rows.map(r => D.rows[+r.dataset.row][column]).filter(e => e !== null);
document.body.dataset.sorted = energies.every((e, i) => i === 0 || energies[i - 1] <= e) ? "yes" : "no";
rows[2].click();
document.body.dataset.chosen = document.getElementById("chosen").textContent;
const pixels = document.getElementById("view").getContext("2d").getImageData(0, 0, 520, 420).data;
document.body.dataset.painted = pixels.filter((v, i) => i % 4 === 3 && v > 0).length;
document.querySelector("#scatter circle").dispatchEvent(new Event("click"));
document.body.dataset.point = document.getElementById("chosen").textContent;
document.getElementById("filter").value = "bad file";
document.getElementById("filter").dispatchEvent(new Event("input"));
document.body.dataset.filtered = document.querySelectorAll("#table tbody tr").length;
document.body.dataset.dots = document.querySelectorAll("#hull circle").length;
</script></body>"""


@pytest.fixture
def results(model: Path, metals: list[Atoms], tmp_path: Path) -> Path:
    alloy = bulk("Cu", a=4.0, cubic=True)
    alloy.symbols[:2] = "Au"
    evil = tmp_path / "<script>alert(1)<" / "broken.cif"
    evil.parent.mkdir()
    evil.write_text("")
    out = tmp_path / "results.db"
    sources = [*metals, ("alloy", alloy), ("</script><b>", metals[0]), evil]
    assert len(list(screen(sources, "energy", out, model=model))) == 15
    return out


def test_page_is_complete_and_needs_no_network(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_or_exit(["report", str(results)])
    page = results.with_suffix(".html").read_text()
    assert "written:" in capsys.readouterr().out
    assert not re.search(r"(src|href)\s*=|@import|fetch\(|XMLHttpRequest|url\(", page)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    content = json.loads(data)
    assert content["total"] == 15
    assert content["counts"] == {"done": 14, "failed": 1}
    assert content["reasons"] == [["read", "bad file", 1]]
    assert content["units"]["energy_per_atom"] == "eV/atom"
    assert len(content["structures"]) == 14
    assert "<script>alert" not in page


def main_or_exit(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code


def test_script_is_correct(results: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    page = write_report(results, tmp_path / "page.html").read_text()
    script = tmp_path / "page.js"
    script.write_text(page[page.rindex("<script>") + 8 : page.rindex("</script>")])
    done = subprocess.run([node, "--check", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_clicks_in_a_browser(results: Path, tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = write_report(results, tmp_path / "page.html")
    page.write_text(page.read_text().replace("</body>", CLICKS))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True, check=False, timeout=200)
    (body,) = re.findall(r"<body[^>]*>", done.stdout)
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', body))
    assert found["ready"] == "yes"
    assert found["sorted"] == "yes"
    assert "atoms" in found["chosen"]
    assert int(found["painted"]) > 1000
    assert "atoms" in found["point"]
    assert found["filtered"] == "1"
    assert found["dots"] == "1"


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="results: no file"):
        write_report(tmp_path / "absent.db", tmp_path / "page.html")
