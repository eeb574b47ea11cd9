from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from ase.build import bulk
from torch import nn

from ase_potnet import load_model as lazily_loaded
from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model
from ase_potnet.models.equivariant_properties import EquivariantProperties
from ase_potnet.pretrained import Target, list_models, load_model, model_info, packaged, save_model

TARGETS = [Target("formation_energy_per_atom", "eV/atom", "formation_energy_peratom"), "band_gap"]


def small_model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model("potnet", {"width": 8, "n_layers": 1, "n_targets": 2, "coefficients": [1.0, 2.0, 3.0]})


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(small_model(), tmp_path / "mine", targets=TARGETS, metadata={"val_mae": 0.03, "data": "none"})


def test_a_loaded_model_predicts_the_same(folder: Path) -> None:
    model = small_model().eval()
    atoms = batch_structures([bulk("NaCl", "rocksalt", a=5.6), bulk("Si")], dtype=torch.float32)
    loaded = load_model(folder)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(atoms), model(atoms))
    assert loaded.config == model.config
    assert lazily_loaded is load_model


def test_dtype_is_kept_or_as_asked(tmp_path: Path) -> None:
    model = small_model().double()
    folder = save_model(model, tmp_path / "double", targets=TARGETS)
    assert {p.dtype for p in load_model(folder).parameters()} == {torch.float64}
    assert torch.equal(next(load_model(folder).parameters()), next(model.parameters()))
    assert {p.dtype for p in load_model(folder, dtype=torch.float32).parameters()} == {torch.float32}


def test_what_is_known_about_a_model(folder: Path) -> None:
    info = model_info(folder)
    assert (info.name, info.model, info.task) == ("mine", "potnet", "property")
    assert info.targets == (TARGETS[0], Target("band_gap"))
    assert info.config["width"] == 8
    assert info.metadata["val_mae"] == 0.03
    assert "val_mae: 0.03" in info.card
    assert names(folder) == ["CARD.md", "config.json", "weights.safetensors"]


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    save_model(small_model(1), folder, targets=TARGETS, card="# New\n")
    assert model_info(folder).card == "# New\n"
    assert torch.equal(load_model(folder).state_dict()["head.0.weight"], small_model(1).state_dict()["head.0.weight"])
    assert names(folder.parent) == ["mine"]


def test_a_failed_save_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "weights.safetensors").read_bytes()

    def broken(path: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        save_model(small_model(1), folder, targets=TARGETS)
    assert (folder / "weights.safetensors").read_bytes() == before
    assert names(folder.parent) == ["mine"]


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"folder: .* holds more than a model \("):
        save_model(small_model(), tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_flipped_bit_is_noticed(folder: Path, place: int) -> None:
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged or was altered: its SHA-256"):
        load_model(folder)


def test_truncated_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    file = folder / "weights.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:50])
    with pytest.raises(ValueError, match="damaged or was altered"):
        load_model(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"has no weights\.safetensors"):
        load_model(folder)
    with pytest.raises(ValueError, match=r"has no config\.json; it was not written by save_model"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', "\xff"])
def test_damaged_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_model(folder)


def test_newer_formats_and_unknown_models_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(ValueError, match="has format 99, this version of ase_potnet reads up to 1"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model": "potnett"}))
    with pytest.raises(ValueError, match="did you mean 'potnet'"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["n_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="do not fit potnet"):
        load_model(folder)


def test_folders_from_before_an_option_keep_their_network(tmp_path: Path) -> None:
    older = {"absolute": True, "cutoff_per_radius": 0.0}
    options = {"width": 8, "message_width": [4, 2, 2], "n_radial": [3, 2, 1], "n_sources": 1} | older
    member = build_model("equivariant-properties", options)
    mean = build_model("mean-of-models", {"members": [{"model": "equivariant-properties", "options": options}]})
    for model, name in ((member, "alone"), (mean, "mean")):
        saved = save_model(model, tmp_path / name, targets=[Target("gap", "eV")])
        config = json.loads((saved / "config.json").read_text())
        inner = config["config"] if name == "alone" else config["config"]["members"][0]["options"]
        for option in older:
            del inner[option]
        (saved / "config.json").write_text(json.dumps(config))
        loaded = load_model(saved)
        parts = [part for part in loaded.modules() if isinstance(part, EquivariantProperties)]
        assert parts
        assert all((part.config.absolute, part.config.cutoff_per_radius) == (True, 0.0) for part in parts)


def test_unknown_names_give_the_nearest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, folder.parent / "weights" / "default")
    monkeypatch.setattr(packaged, "weights_folder", lambda: folder.parent / "weights")
    assert list_models() == ["default"]
    assert model_info("default").model == "potnet"
    with pytest.raises(ValueError, match=r"no folder 'defautl', did you mean 'default'\? Packaged models: default\."):
        load_model("defautl")


def test_metadata_and_weights_must_be_sound(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata: wanted JSON without NaN"):
        save_model(small_model(), tmp_path / "a", targets=TARGETS, metadata={"mae": float("nan")})
    with pytest.raises(ValueError, match="task: wanted one of property, energy, got 'magic'"):
        save_model(small_model(), tmp_path / "a", task="magic")
    model = small_model()
    with torch.no_grad():
        next(model.parameters())[0] = torch.inf
    with pytest.raises(ValueError, match=r"the weights .* are not finite"):
        save_model(model, tmp_path / "a", targets=TARGETS)
    with pytest.raises(ValueError, match="model must be one of potnet"):
        save_model(nn.Linear(1, 1), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_task_and_targets_must_fit_the_model(tmp_path: Path) -> None:
    potential = build_model("equivariant-potnet", {"width": 8, "message_width": [4, 2, 2]})
    with pytest.raises(ValueError, match="task: PotNet is no model for 'energy'"):
        save_model(small_model(), tmp_path / "a", task="energy")
    with pytest.raises(ValueError, match="task: EquivariantPotNet is no model for 'property'"):
        save_model(potential, tmp_path / "a", targets=TARGETS)
    for targets in ((), TARGETS[:1], [*TARGETS, "third"], "gap"):
        with pytest.raises(ValueError, match="targets: the model predicts 2, got"):
            save_model(small_model(), tmp_path / "a", targets=targets)
    assert not list(tmp_path.iterdir())


def test_folders_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save_model(small_model(), "~/home", targets=TARGETS) == tmp_path / "home"
    assert load_model("~/home") is not None
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target", target_is_directory=True)
    save_model(small_model(), tmp_path / "link", targets=TARGETS)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target" / "weights.safetensors").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="the current folder"):
        save_model(small_model(), ".", targets=TARGETS)


def test_a_config_that_describes_no_model_is_said(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["width"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json describes no model"):
        load_model(folder)


@pytest.mark.parametrize("device", ["cuda:7", "mps", "abacus", None])
def test_devices_that_are_not_there(folder: Path, device: str) -> None:
    with pytest.raises(ValueError, match="device: "):
        load_model(folder, device=device)


def test_packaged_models_are_sound() -> None:
    for name in list_models():
        info = model_info(name)
        assert info.targets
        assert info.card
        load_model(name)
