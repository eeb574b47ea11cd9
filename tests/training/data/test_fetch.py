"""Downloads, with stand-ins for the clients: nothing here touches the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ase_potnet.training.data import open_dataset
from ase_potnet.training.data.fetch import fetch_jarvis, fetch_materials_project


class Rester:
    """Stands in for mp_api.client.MPRester."""

    asked: dict[str, Any]
    documents: list[Any]
    error: Exception | None = None

    def __init__(self, key: str) -> None:
        Rester.asked = {"key": key}
        self.materials = SimpleNamespace(summary=SimpleNamespace(search=self.search))

    def __enter__(self) -> Rester:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def search(self, **criteria: Any) -> list[Any]:
        if Rester.error is not None:
            raise Rester.error
        Rester.asked |= criteria
        return Rester.documents


class Structure:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def as_dict(self) -> dict[str, Any]:
        return self.data


class Identifier:
    def __str__(self) -> str:
        return "mp-1"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mp_api.client")
    module.MPRester = Rester  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mp_api", ModuleType("mp_api"))
    monkeypatch.setitem(sys.modules, "mp_api.client", module)
    monkeypatch.setattr(Rester, "error", None)
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pymatgen.core", SimpleNamespace(SETTINGS={}))


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("name", ["docs.json", "docs.json.gz"])
def test_materials_project(samples: Path, tmp_path: Path, name: str) -> None:
    document = json.loads((samples / "mp_summary_sample.json").read_text(encoding="utf-8"))[0]
    structure = Structure(document["structure"])
    Rester.documents = [SimpleNamespace(material_id=Identifier(), structure=structure, band_gap=1.5)]
    path = fetch_materials_project(tmp_path / name, fields=["band_gap"], api_key="k", elements=["O"])
    fields = ["material_id", "structure", "band_gap"]
    assert Rester.asked == {"key": "k", "fields": fields, "all_fields": False, "elements": ["O"]}
    data = open_dataset(path, progress=False)
    assert data.ids == ["mp-1"]
    assert data[0].targets == {"band_gap": 1.5}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("client")
def test_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"api_key: none given and none in MP_API_KEY; get one at https://"):
        fetch_materials_project(tmp_path / "a.json")
    Rester.documents = []
    monkeypatch.setitem(sys.modules, "pymatgen.core", SimpleNamespace(SETTINGS={"PMG_MAPI_KEY": "from settings"}))
    fetch_materials_project(tmp_path / "a.json")
    assert Rester.asked["key"] == "from settings"
    monkeypatch.setenv("MP_API_KEY", "from environment")
    fetch_materials_project(tmp_path / "a.json")
    assert Rester.asked["key"] == "from environment"


@pytest.mark.usefixtures("client")
def test_failing_download(tmp_path: Path) -> None:
    Rester.error = OSError("no route to host")
    with pytest.raises(ConnectionError, match="download from the Materials Project failed: no route to host"):
        fetch_materials_project(tmp_path / "a.json", api_key="k")
    assert not list(tmp_path.iterdir())


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    monkeypatch.setitem(sys.modules, "jarvis.db.figshare", None)
    with pytest.raises(ImportError, match="needs the package mp-api: pip install mp-api"):
        fetch_materials_project(tmp_path / "a.json", api_key="k")
    with pytest.raises(ImportError, match="needs the package jarvis-tools: pip install jarvis-tools"):
        fetch_jarvis(tmp_path / "a.json")


def test_jarvis(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = json.loads((samples / "jarvis_sample.json").read_text(encoding="utf-8"))
    asked: list[tuple[str, dict[str, Any]]] = []

    def data(name: str, **options: Any) -> list[dict[str, Any]]:
        asked.append((name, options))
        if name != "dft_3d":
            raise KeyError(name)
        return entries

    for module in ("jarvis", "jarvis.db"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setitem(sys.modules, "jarvis.db.figshare", SimpleNamespace(data=data))
    path = fetch_jarvis(tmp_path / "a.json.gz", cache=tmp_path)
    assert asked == [("dft_3d", {"store_dir": str(tmp_path)})]
    assert open_dataset(path, progress=False).ids == [entry["jid"] for entry in entries]
    with pytest.raises(ConnectionError, match="download of JARVIS dft_9d failed"):
        fetch_jarvis(tmp_path / "b.json", name="dft_9d")
