"""Perturbation recipes: which kinds of frames are made from a structure, how often, and the limits they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..yaml_files import read_yaml


def _pair(value: Any) -> Any:
    """A single number stands for a range of that number alone."""
    return (value, value) if isinstance(value, (int, float)) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"wanted [low, high], got [{value[0]}, {value[1]}]")
    return value


_ORDERED = (BeforeValidator(_pair), AfterValidator(_ordered))
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]
VolumeRange = Annotated[tuple[_Positive, _Positive], *_ORDERED]
SigmaRange = Annotated[tuple[_NotNegative, _NotNegative], *_ORDERED]
CountRange = Annotated[tuple[_Count, _Count], *_ORDERED]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Supercell(_Strict):
    """Supercells of at least two cells.

    Attributes:
        atoms: least and most number of atoms; the number of cells is drawn uniformly
        shape: "near-cubic" searches all integer matrices for the longest shortest lattice vector, "diagonal" repeats
            the cell along its own vectors. Structures that are not periodic in all directions take the latter.
    """

    atoms: CountRange = (8, 32)
    shape: Literal["near-cubic", "diagonal"] = "near-cubic"


class Surface(_Strict):
    """Slabs with vacuum, periodic in three directions, of the bulk's composition and with a random termination.

    Attributes:
        max_index: largest absolute Miller index, of the cell as given
        thickness: least thickness of the slab before the vacuum is added, Å
        vacuum: between a slab and its next image, Å
        max_atoms: Miller indices that need more atoms are not taken
    """

    max_index: Annotated[int, Field(ge=1, le=4)] = 1
    thickness: _Positive = 8.0
    vacuum: _Positive = 12.0
    max_atoms: _Count = 60


class Kind(_Strict):
    """One way to make a frame: supercell or surface, then vacancies, then strain, then rattle.

    Attributes:
        weight: how often, relative to the other kinds
        volume: range of the volume over that of the structure (area or length where only these are periodic)
        shear: standard deviation of the components of the symmetric strain, before it is scaled to the volume
        sigma: range of the standard deviation of every Cartesian displacement, Å
        supercell, surface: see there
        vacancies: number of random atoms taken out
    """

    weight: _Positive = 1.0
    volume: VolumeRange = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, le=0.15)] = 0.0
    sigma: SigmaRange = (0.0, 0.0)
    supercell: Supercell | None = None
    surface: Surface | None = None
    vacancies: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_cell(self) -> Kind:
        if self.supercell is not None and self.surface is not None:
            raise ValueError("wanted supercell or surface, got both")
        return self

    @property
    def strains(self) -> bool:
        """Whether the cell is strained."""
        return self.volume != (1.0, 1.0) or self.shear > 0

    @property
    def changes(self) -> bool:
        """Whether the frame differs from the structure at all."""
        rebuilt = self.supercell is not None or self.surface is not None or self.vacancies > 0
        return rebuilt or self.strains or self.sigma[1] > 0


class Limits(_Strict):
    """Frames beyond these are recorded as failures.

    Attributes:
        max_atoms: of a structure and of a frame
        max_force: largest norm of the force on an atom, eV/Å; None takes all
        min_distance: between two atoms of a frame, Å
    """

    max_atoms: _Count = 200
    max_force: _Positive | None = 50.0
    min_distance: _NotNegative = 0.5


class Recipe(_Strict):
    """A perturbation recipe.

    Attributes:
        frames: number of frames a structure
        seed: together with a structure's id and a frame's number it fixes the frame, whatever else is labelled
        kinds: name to kind; drawn by weight among those that can be applied to the structure. A kind that changes
            nothing is drawn for frame 0 only, so that no structure is labelled twice as it is.
        limits: see there
    """

    frames: _Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    kinds: dict[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")], Kind] = Field(min_length=1)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _later_frames(self) -> Recipe:
        if self.frames > 1 and not any(kind.changes for kind in self.kinds.values()):
            raise ValueError("frames: one is enough where no kind changes the structure")
        return self


_STRAIN = {"volume": (0.90, 1.15), "shear": 0.025}
_LARGE = {"supercell": {"atoms": (8, 32)}}
BUILT_IN: dict[str, dict[str, Any]] = {
    "none": {"kinds": {"original": {}}},
    "default": {
        "frames": 5,
        "kinds": {
            "original": {"weight": 0.3},
            "rattled": {"weight": 0.3, "sigma": (0.03, 0.25), **_STRAIN},
            "strained": {"weight": 0.15, **_STRAIN},
            "harmonic": {"weight": 0.15, "sigma": (0.005, 0.03)},
            "supercell": {"weight": 0.2, "volume": (0.96, 1.04), "sigma": (0.01, 0.15), **_LARGE},
            "compressed": {"weight": 0.05, "volume": (0.70, 0.90), "sigma": (0.0, 0.1)},
            "expanded": {"weight": 0.05, "volume": (1.15, 1.50), "sigma": (0.0, 0.1)},
            "surface": {"weight": 0.05, "surface": {}, "sigma": (0.0, 0.1)},
            "vacancy": {"weight": 0.05, "vacancies": 1, "sigma": (0.0, 0.1), **_LARGE},
        },
    },
    "phonon": {
        "frames": 4,
        "kinds": {
            "supercell": {"weight": 0.7, "volume": (0.96, 1.04), "sigma": (0.01, 0.08), **_LARGE},
            "harmonic": {"weight": 0.3, "volume": (0.96, 1.04), "sigma": (0.005, 0.03)},
        },
    },
    "displaced": {"kinds": {"displaced": {"sigma": 0.02}}},
}


def load_recipe(recipe: str | Path | Recipe, *, frames: int | None = None, seed: int | None = None) -> Recipe:
    """The recipe of that name, or in that YAML file.

    Args:
        recipe: none (structures as they are), default, phonon, displaced (atoms moved by about 0.02 Å in the same cell:
            the second of two frames, for differences of forces), a YAML file, or a recipe
        frames, seed: in place of the recipe's own

    Raises:
        ValueError: there is no such name or file, or the file's content is no recipe, with field and reason.
    """
    if isinstance(recipe, Recipe):
        fields: Any = recipe.model_dump()
    elif str(recipe) in BUILT_IN:
        fields = dict(BUILT_IN[str(recipe)])
    elif Path(recipe).is_file():
        fields = read_yaml(Path(recipe))
    else:
        raise ValueError(f"recipe: wanted {', '.join(BUILT_IN)} or a YAML file, got {recipe}")
    fields |= {key: value for key, value in (("frames", frames), ("seed", seed)) if value is not None}
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        name = "recipe" if isinstance(recipe, Recipe) else f"recipe {recipe}"
        raise ValueError(f"{name}: {faults}") from error
