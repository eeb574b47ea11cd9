from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ase_potnet.training.recipe import differences, load_recipe, packaged_recipes

Write = Callable[..., Path]


def changed(recipe: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return load_and_set(recipe, key, value)


def load_and_set(recipe: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    head, *rest = key.split(".", 1)
    inner = load_and_set(recipe.get(head, {}), rest[0], value) if rest else value
    return recipe | {head: inner}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch", 3, r"unknown key 'epoch', did you mean 'epochs'\?"),
        ("data.split.frations", [1, 0, 0], r"unknown key 'data.split.frations', did you mean 'fractions'\?"),
        ("optimiser.momentum", 0.9, r"unknown key 'optimiser.momentum'; there are lr, weight_decay"),
        ("data.targets", [{"name": "a", "units": "eV"}], r"unknown key 'data.targets.0.units', did you mean 'unit'\?"),
        ("optimiser.lr", -1, r"optimiser.lr: input should be greater than 0, got -1"),
        ("epochs", "many", r"epochs: input should be a valid integer.*got 'many'"),
        ("data.targets", [], r"task property needs data.targets"),
        ("task", "energy", r"data.targets must be empty"),
        ("data.split", {"kind": "file"}, r"data.split: kind file needs a path"),
        ("loss.target_weights", [1, 2, 3], r"loss.target_weights: wanted 2 numbers, got 3"),
        ("loss.energy.kind", "l7", r"loss.energy.kind: input should be 'mse', 'l1', 'huber' or 'norm', got 'l7'"),
        ("precision", "double", r"precision: input should be 'full', 'bf16' or 'fp16'"),
        ("devices", 0, r"devices.*greater than or equal to 1"),
        ("seed", 10**20, r"seed: input should be less than 4294967296"),
        ("output", "", r"output: string should have at least 1 character"),
        ("data.path", 5, r"data.path: wanted a path, a mapping with a path, or a list of these, got 5"),
        ("data.path", None, r"data.path: wanted a path"),
        ("data.targets", ["gap", "gap"], r"data.targets: names must differ, gap occurs more than once"),
        ("accelerator", "mps", r"accelerator: input should be 'auto', 'cpu', 'cuda' or 'gpu', got 'mps'"),
    ],
)
def test_what_is_wrong_is_named(property_recipe: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(changed(property_recipe, key, value))


def test_all_errors_at_once_with_the_file(property_recipe: dict[str, Any], write: Write) -> None:
    path = write(property_recipe, epochs=0, sed=1)
    with pytest.raises(ValueError, match=r"recipe\.yaml: .*epochs.*; .*'sed', did you mean 'seed'"):
        load_recipe(path)


def test_missing_key_is_named(property_recipe: dict[str, Any]) -> None:
    del property_recipe["output"]
    with pytest.raises(ValueError, match="missing key 'output'"):
        load_recipe(property_recipe)


def test_numbers_like_1e_minus_3_are_numbers_in_overrides(property_recipe: dict[str, Any]) -> None:
    recipe = load_recipe(property_recipe, {"model.options": {"cutoff": "45e-1"}, "optimiser.lr": "1e-4"})
    assert recipe.model.options == {"cutoff": 4.5}
    assert recipe.optimiser.lr == 1e-4


def test_overrides_replace_and_make_sections(property_recipe: dict[str, Any], write: Write) -> None:
    overrides = {"loss.kind": "l1", "data.max_structures": 4, "model.options.width": 3}
    recipe = load_recipe(write(property_recipe), overrides)
    assert recipe.loss.kind == "l1"
    assert recipe.data.max_structures == 4
    assert recipe.model.options == {"width": 3}
    assert "loss" not in property_recipe


def test_numbers_like_1e_minus_3_are_numbers_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "output: x\ndata: {path: p, targets: [t]}\nmodel: {name: potnet, options: {tolerance: 1e-6}}\n"
    path.write_text(text + "optimiser: {lr: 5e-4}\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.optimiser.lr == 5e-4
    assert recipe.model.options["tolerance"] == 1e-6


@pytest.mark.parametrize(("text", "message"), [("a: [1", "not YAML"), ("- 1\n", "wanted keys and values, got list")])
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_unknown_recipe_gives_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"no file jarvis_bandgap, did you mean 'jarvis_band_gap'\?"):
        load_recipe("jarvis_bandgap")


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_are_valid(name: str) -> None:
    from ase_potnet.models import build_model
    from ase_potnet.pretrained import list_models

    model = load_recipe(name).model
    if model.start_from is not None:
        assert model.start_from in list_models()
    else:
        assert model.name is not None
        build_model(model.name, model.options)


def test_keys_of_a_loss_term_leave_its_other_defaults(property_recipe: dict[str, Any]) -> None:
    loss = load_recipe(property_recipe, {"loss.stress.weight": 20.0, "loss.energy.kind": "l1"}).loss
    assert (loss.stress.weight, loss.stress.delta) == (20.0, 0.005)
    assert (loss.energy.kind, loss.energy.delta) == ("l1", 0.01)


def test_differences_leave_out_what_may_change(property_recipe: dict[str, Any]) -> None:
    first = load_recipe(property_recipe)
    stored = first.model_dump(mode="json")
    assert differences(load_recipe(property_recipe | {"max_seconds": 5.0, "devices": 2}), stored) == []
    other = load_recipe(property_recipe, {"optimiser.lr": 0.5, "epochs": 9})
    assert differences(other, stored) == ["epochs", "optimiser.lr"]
