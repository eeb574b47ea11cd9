"""Recipes: built in, from YAML, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ase_potnet.training.labelling import BUILT_IN, Kind, Recipe, load_recipe


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_recipes_are_valid_and_survive_json(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert sum(not kind.changes for kind in recipe.kinds.values()) == (name not in ("phonon", "displaced"))


def test_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
frames: 3
seed: 7
kinds:
  hot: {weight: 2, sigma: [0.1, 0.2], volume: 1.1}
  big: {supercell: {atoms: 16, shape: diagonal}}
limits: {max_force: null, max_atoms: 40}
"""
    )
    recipe = load_recipe(path)
    assert (recipe.frames, recipe.seed) == (3, 7)
    assert recipe.kinds["hot"] == Kind(weight=2.0, sigma=(0.1, 0.2), volume=(1.1, 1.1))
    assert recipe.kinds["big"].supercell is not None
    assert recipe.kinds["big"].supercell.atoms == (16, 16)
    assert (recipe.limits.max_force, recipe.limits.max_atoms, recipe.limits.min_distance) == (None, 40, 0.5)
    changed = load_recipe(recipe, frames=5, seed=1)
    assert (changed.frames, changed.seed, changed.kinds) == (5, 1, recipe.kinds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kinds: {a: {sigma: [0.2, 0.1]}}", r"kinds\.a\.sigma: .*wanted \[low, high\]"),
        ("kinds: {a: {sigma: -1}}", r"kinds\.a\.sigma"),
        ("kinds: {a: {volume: [0, 1]}}", r"kinds\.a\.volume"),
        ("kinds: {a: {shear: .nan}}", r"kinds\.a\.shear"),
        ("kinds: {a: {weight: 0}}", r"kinds\.a\.weight"),
        ("kinds: {a: {sigmas: 0.1}}", r"kinds\.a\.sigmas: Extra inputs"),
        ("kinds: {'a b': {}}", r"kinds\.a b"),
        ("kinds: {a: {surface: {}, supercell: {}}}", r"supercell or surface, got both"),
        ("kinds: {}", r"kinds: "),
        ("frames: 2\nkinds: {a: {}}", r"frames: one is enough"),
        ("frames: 0\nkinds: {a: {}}", r"frames: "),
        ("- a", "wanted keys and values, got list"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_recipes_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"wanted none, default, phonon, displaced or a YAML file, got phonons"):
        load_recipe("phonons")
