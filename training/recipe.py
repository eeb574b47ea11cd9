"""Recipes: one YAML file describes one training, every key checked."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ase_potnet.checks import changes
from ase_potnet.graph import PairCutoffs
from ase_potnet.pretrained import Target

from .batches import Budget
from .losses import LossKind
from .schedules import ScheduleKind
from .yaml_files import read_yaml

PACKAGED = Path(__file__).parent / "recipes"

Weight = Annotated[float, Field(ge=0)] | tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _source(value: Any) -> Any:
    if not value or not isinstance(value, str | Path | dict | list | tuple):
        raise ValueError("wanted a path, a mapping with a path, or a list of these")
    return value


def _target(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class TargetConfig(Section):
    """A quantity to learn; `field` is its name in the data if that differs from `name`.

    minimum: lowest possible value, such as 0 for a band gap, to which predictions below are raised
    """

    name: str
    unit: str = ""
    field: str | None = None
    minimum: float | None = None

    def target(self) -> Target:
        return Target(self.name, self.unit, self.field, self.minimum)


class SplitConfig(Section):
    """How the data are taken apart.

    kind: "file": ids from the JSON file at `path`; "folder": as the JARVIS-Leaderboard folder says; "seeded": shuffled;
        "group": shuffled by group; "formula": shuffled, all structures of a formula together
    fractions: of training, validation and test
    """

    kind: Literal["file", "folder", "seeded", "group", "formula"] = "seeded"
    path: str | None = None
    seed: int = 123
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)

    @model_validator(mode="after")
    def _has_path(self) -> SplitConfig:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("kind file needs a path, and no other kind has one")
        return self


class ReplayConfig(Section):
    """Frames against forgetting: other crystals, labelled by the model that the training starts from.

    path: their structures, perturbed (no labels are needed); null: common crystal types of random elements
    frames: how many are added to the training part, as frames of the kind "replay"
    """

    path: Any = None
    frames: int = Field(default=500, ge=1)


class DataConfig(Section):
    """What to learn from.

    path: file, folder, glob pattern, or list of these or of mappings, see `ase_potnet.training.data.open_dataset`
    targets: of a property model
    labels: of an energy model, where "energy" (eV), "forces" (eV/Å) or "stress" (eV/Å^3) have other names: these
    val: a source of its own for validation; the split then leaves no validation part
    max_structures: training structures at most, the first ones of the split
    max_atoms: larger structures are left out of the training part
    replay: of an energy model with model.start_from; null for none
    """

    path: Annotated[Any, AfterValidator(_source)]
    kind: str = "auto"
    targets: tuple[Annotated[TargetConfig, BeforeValidator(_target)], ...] = ()
    labels: dict[Literal["energy", "forces", "stress"], str] = {}
    split: SplitConfig = SplitConfig()
    val: Any = None
    max_structures: int | None = Field(default=None, ge=1)
    max_atoms: int | None = Field(default=None, ge=1)
    replay: ReplayConfig | None = None


class ModelConfig(Section):
    """The network: a name and its options, those of the Config class of the network.

    start_from: packaged model or folder whose weights are taken over where name and shape agree; name and options
        are then its own unless they are given here; a wider potential starts as the narrower one. Elements of the
        training part that it does not know are added
    shift_references: of an energy model: shift the energies of the elements that the data hold so that the model agrees
        best with the energies of the training part, for data of another level of theory
    freeze: patterns of parameter names that stay as they are, such as "layers.0.*"
    """

    name: str | None = None
    options: dict[str, Any] = {}
    start_from: str | None = None
    shift_references: bool = False
    freeze: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_known(self) -> ModelConfig:
        if self.name is None and self.start_from is None:
            raise ValueError("a name or start_from is missing")
        if self.shift_references and self.start_from is None:
            raise ValueError("shift_references needs start_from")
        return self


class TermConfig(Section):
    """One term of an energy loss: its weight, or (first, last) to go from one to the other."""

    weight: Weight = 1.0
    kind: LossKind = "huber"
    delta: float = Field(default=0.05, gt=0)


class EnergyTermConfig(TermConfig):
    """Of the energy per atom, eV."""

    delta: float = Field(default=0.01, gt=0)


class StressTermConfig(TermConfig):
    """Of the stress, eV/Å^3."""

    weight: Weight = 10.0
    delta: float = Field(default=0.005, gt=0)


class DifferencesConfig(TermConfig):
    """Differences of the forces on frames of one cell with the same atoms, such as two displacements of a supercell.

    They tell curvatures, and with them phonons, apart from forces that are wrong at rest. The errors of a pair are
    divided by `scale` (eV/Å) plus the root mean square of the difference, to the `power`.
    """

    kind: LossKind = "norm"
    scale: float = Field(default=0.05, gt=0)
    power: float = Field(default=0.5, ge=0, le=1)


class LossConfig(Section):
    """The loss.

    Properties use kind, delta and target_weights; errors are in units of the targets' standard deviations.
    Energies use the terms: energy per atom (eV), forces (eV/Å), stress (eV/Å^3), and kind_weights by kind of frame.
    With force_scale (eV/Å), the force errors of a frame are divided by force_scale plus the root mean square of its
    forces, to the force_power: small displacements then count, as phonons want it. A power of 1, relative errors, makes
    stiff crystals too soft, because what is too large costs more than what is too small. With stress_scale (eV/Å^3),
    energy and stress errors of a frame are divided by one plus the root mean square of its stress over stress_scale, so
    that strongly compressed cells do not take over. With differences, frames of one cell come in twos.
    """

    kind: LossKind = "huber"
    delta: float = Field(default=1.0, gt=0)
    target_weights: tuple[float, ...] | None = None
    energy: EnergyTermConfig = EnergyTermConfig()
    forces: TermConfig = TermConfig()
    stress: StressTermConfig = StressTermConfig()
    differences: DifferencesConfig | None = None
    kind_weights: dict[str, float] = {}
    force_scale: float | None = Field(default=None, gt=0)
    force_power: float = Field(default=0.5, ge=0, le=1)
    stress_scale: float | None = Field(default=None, gt=0)


class OptimiserConfig(Section):
    """AdamW and its learning rate.

    warmup: share of the training until the highest rate is reached
    final: rate at the end over the highest
    seconds: the schedule, and the training, run over this time (all invocations together) instead of `epochs`
    clock: of `seconds`: "wall", or "cpu" for the processor time of the process, which is the fair one on a machine that
        is shared with other work
    """

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: ScheduleKind = "one-cycle"
    warmup: float = Field(default=0.3, ge=0, lt=1)
    final: float = Field(default=1e-4, ge=0, le=1)
    seconds: float | None = Field(default=None, gt=0)
    clock: Literal["wall", "cpu"] = "wall"


class BatchConfig(Section):
    """Limits of a batch, that is of one step over all devices; see `Budget`.

    cutoff: Å, for edges; by default those of the model, or 5
    """

    structures: int | None = Field(default=None, ge=1)
    atoms: int | None = Field(default=None, ge=1)
    pairs: int | None = Field(default=None, ge=1)
    edges: int | None = Field(default=None, ge=1)
    cutoff: float | None = Field(default=None, gt=0)

    def budget(self, cutoff: float | PairCutoffs) -> Budget:
        """cutoff: that of the model"""
        limits = (self.structures, self.atoms, self.pairs, self.edges)
        structures = 64 if all(limit is None for limit in limits) else self.structures
        return Budget(structures, self.atoms, self.pairs, self.edges, self.cutoff or cutoff)


class EarlyStoppingConfig(Section):
    """Stop after `patience` epochs in which the validation score fell by less than `min_delta`."""

    patience: int = Field(ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Recipe(Section):
    """One training.

    output: folder for checkpoints, logs, and the trained model
    task: "property" or "energy"
    ema: decay of the averaged weights that are validated and exported; 0: none
    clip: largest norm of the gradient; null: none
    max_seconds: stop this invocation after that time; run it again to go on
    checkpoint_seconds: the most that a kill can cost
    precision: "full", or autocast to "bf16" or "fp16" of potnet and invariant-potnet, their lattice sums excepted
    accelerator: "cpu", "cuda" (or "gpu"); "auto": a GPU if there is one
    devices: number of processes, or "auto"; nodes: of machines
    """

    output: str = Field(min_length=1)
    task: Literal["property", "energy"] = "property"
    data: DataConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    batch: BatchConfig = BatchConfig()
    epochs: int = Field(default=100, ge=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    clip: float | None = Field(default=10.0, gt=0)
    max_seconds: float | None = Field(default=None, gt=0)
    checkpoint_seconds: float = Field(default=45.0, ge=0)
    early_stopping: EarlyStoppingConfig | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    dtype: Literal["float32", "float64"] = "float32"
    precision: Literal["full", "bf16", "fp16"] = "full"
    accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto"
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    nodes: int = Field(default=1, ge=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.task == "property" and not self.data.targets:
            raise ValueError("task property needs data.targets")
        if self.task == "energy" and self.data.targets:
            raise ValueError("task energy learns energy, forces and stress; data.targets must be empty")
        if twice := [name for name, n in Counter(target.name for target in self.data.targets).items() if n > 1]:
            raise ValueError(f"data.targets: names must differ, {', '.join(twice)} occurs more than once")
        weights = self.loss.target_weights
        if weights is not None and len(weights) != len(self.data.targets):
            raise ValueError(f"loss.target_weights: wanted {len(self.data.targets)} numbers, got {len(weights)}")
        if self.task == "property" and (self.data.replay or self.data.labels or self.model.shift_references):
            raise ValueError("data.labels, data.replay and model.shift_references are for task energy")
        if self.data.replay and self.model.start_from is None:
            raise ValueError("data.replay needs model.start_from, which labels the frames")
        return self


# what may change when a training is continued
_FREE = ("max_seconds", "checkpoint_seconds", "tensorboard", "output", "accelerator", "devices", "nodes")


def load_recipe(source: str | Path | dict[str, Any], overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe from a YAML file, from the name of a packaged recipe, or from a mapping.

    Args:
        overrides: dotted keys to values that replace those of the file, such as {"data.path": "jdft_3d.json"}.

    Raises:
        ValueError: no such file, not YAML, unknown or missing keys, wrong values; every one is named.
    """
    name = "recipe"
    data: Any = source
    if not isinstance(source, dict):
        file = recipe_file(source)
        name, data = str(file), read_yaml(file)
    data = _copy(data)
    for key, value in (overrides or {}).items():
        _set(data, key, _copy(value))
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors()]
        raise ValueError(f"{name}: " + "; ".join(lines)) from None


def recipe_file(source: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a packaged recipe."""
    path = Path(source).expanduser()
    packaged = PACKAGED / f"{source}.yaml"
    if path.is_file():
        return path
    if packaged.is_file():
        return packaged
    names = packaged_recipes()
    near = get_close_matches(str(source), names, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"recipe: no file {source}{hint} Packaged recipes: {', '.join(names)}")


def packaged_recipes() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(file.stem for file in PACKAGED.glob("*.yaml"))


def differences(recipe: Recipe, other: dict[str, Any]) -> list[str]:
    """Dotted keys, other than those that may change, in which a recipe differs from an earlier one.

    Keys that the earlier one lacks, since there were none yet, have their defaults.
    """
    ours = recipe.model_dump(mode="json", exclude=set(_FREE))
    with contextlib.suppress(ValidationError):
        other = Recipe.model_validate(other).model_dump(mode="json")
    theirs = {key: value for key, value in other.items() if key not in _FREE}
    return sorted(change.key for change in changes(theirs, ours))


def _copy(value: Any) -> Any:
    """A deep copy; 1e-3, which is text in YAML 1.1, becomes a number."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return float(value)
    return value


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making sections on the way."""
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[last] = value


def _explain(error: dict[str, Any]) -> str:
    """One validation error as a phrase that names the key."""
    place = [str(part) for part in error["loc"]]
    key = ".".join(place) or "recipe"
    if error["type"] == "extra_forbidden":
        known = list(_section(place[:-1]).model_fields)
        near = get_close_matches(place[-1], known, n=1)
        return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}")
    if error["type"] == "missing":
        return f"missing key {key!r}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not place:
        return message
    return f"{key}: {message[:1].lower()}{message[1:]}, got {error['input']!r}"


def _section(place: list[str]) -> type[BaseModel]:
    """The section that a path of keys leads to."""
    section: type[BaseModel] = Recipe
    for part in place:
        found = section.model_fields.get(part)
        inner = _models(found.annotation) if found else []
        section = inner[0] if inner else section
    return section


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]
