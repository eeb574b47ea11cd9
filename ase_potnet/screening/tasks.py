"""What is done to every crystal: small classes, structure to record; users add theirs by entry point."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

import numpy as np
from ase import Atoms
from ase.units import GPa

from ase_potnet.checks import LARGEST_SYMPREC
from ase_potnet.evaluation import Result
from ase_potnet.prediction import model_for
from ase_potnet.pretrained import model_info
from ase_potnet.screening.engine import Answers, Ask, Steps, as_tuple
from ase_potnet.screening.failures import NOT_CONVERGED, ScreeningFailure
from ase_potnet.screening.relaxation import relax_steps
from ase_potnet.user_modules import import_from_here

ENTRY_POINTS = "ase_potnet.screening_tasks"
PROPERTY = "property:"
_HOMES = {
    "energy": "tasks:SinglePoint",
    "relax": "tasks:Relax",
    "property": "tasks:Property",
    "hull": "hull:Hull",
    "eos": "elasticity:EquationOfState",
    "elastic": "elasticity:Elastic",
    "phonon-stability": "phonons:PhononStability",
}


@dataclass
class Crystal:
    """A crystal on its way through the tasks.

    id: its name in the source
    atoms: the structure that the next task gets; a task that changes it sets ``result`` as well
    values: of the tasks before
    result: energy, forces and stress of ``atoms``, where they are known
    """

    id: str
    atoms: Atoms
    values: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None


class Task(Protocol):
    """One thing to do to a crystal. Options are the fields of a dataclass, JSON all of them.

    name: as it is asked for
    columns: names of its values and their units
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, str]]

    def run(self, crystal: Crystal) -> Steps | Mapping[str, Any]:
        """The values; or a generator that yields ``Ask``, is sent the answers, and returns the values.

        Raises ScreeningFailure for a crystal that it cannot deal with. Whatever else it raises is kept as a failure.
        """


@dataclass(frozen=True)
class SinglePoint:
    """Energy, forces and stress of the structure as it is; after a relaxation nothing is evaluated again.

    forces: without them (and the stress) a third of the time
    """

    forces: bool = True
    name: ClassVar[str] = "energy"
    columns: ClassVar[Mapping[str, str]] = {
        "energy": "eV",
        "energy_per_atom": "eV/atom",
        "volume_per_atom": "Å^3/atom",
        "largest_force": "eV/Å",
        "pressure": "GPa",
    }

    def run(self, crystal: Crystal) -> Steps:
        """One question at most."""
        result = crystal.result
        if result is None:
            (result,) = yield Ask([as_tuple(crystal.atoms)], forces=self.forces, stress=self.forces)
            crystal.result = result if self.forces else None
        return describe(crystal.atoms, result)


def describe(atoms: Atoms, result: Result) -> dict[str, Any]:
    """The values of a single point."""
    n = len(atoms)
    values: dict[str, Any] = {"energy": result.energy, "energy_per_atom": result.energy / n}
    if atoms.pbc.all():
        values["volume_per_atom"] = float(atoms.get_volume()) / n
    if result.forces is not None:
        values["largest_force"] = float(np.linalg.norm(result.forces, axis=1).max())
    if result.stress is not None:
        values["pressure"] = -float(result.stress[:3].mean()) / GPa
    return values


@dataclass(frozen=True)
class Relax:
    """Relaxation of atoms and cell with the symmetry kept; the tasks after it get the relaxed structure.

    fmax: eV/Å; stress counts as in ASE's ``FrechetCellFilter``
    max_steps: evaluations; a crystal that needs more fails as "not converged", its values kept
    cell: relax the cell, too
    symprec: Å; 0: no symmetry is looked for; else the package spglib is needed
    pressure: GPa
    """

    fmax: float = 0.02
    max_steps: int = 300
    cell: bool = True
    symprec: float = 0.01
    pressure: float = 0.0
    name: ClassVar[str] = "relax"
    columns: ClassVar[Mapping[str, str]] = {
        **SinglePoint.columns,
        "relax_steps": "",
        "relax_force": "eV/Å",
        "volume_change": "",
    }

    def __post_init__(self) -> None:
        if not self.fmax > 0:
            raise ValueError(f"relax.fmax: wanted a positive force in eV/Å, got {self.fmax!r}")
        if self.max_steps < 0:
            raise ValueError(f"relax.max_steps: wanted a number from 0, got {self.max_steps}")
        if not 0 <= self.symprec <= LARGEST_SYMPREC:
            raise ValueError(f"relax.symprec: wanted a length from 0 to {LARGEST_SYMPREC} Å, got {self.symprec!r}")
        if self.symprec:
            import_module("spglib")  # missed before the first crystal

    def run(self, crystal: Crystal) -> Steps:
        """One question a step."""
        before = crystal.atoms
        found = yield from relax_steps(
            before, fmax=self.fmax, max_steps=self.max_steps, cell=self.cell, symprec=self.symprec or None,
            pressure=self.pressure * GPa,
        )  # fmt: skip
        crystal.atoms, crystal.result = found.atoms, found.result
        values = describe(found.atoms, found.result)
        values |= {"relax_steps": found.steps, "relax_force": found.force}
        if before.pbc.all():
            values["volume_change"] = float(found.atoms.get_volume() / before.get_volume()) - 1
        if not found.converged:
            crystal.values.update(values)
            raise ScreeningFailure(NOT_CONVERGED, f"{found.force:.3g} eV/Å left after {found.steps} steps")
        return values


@dataclass(frozen=True)
class Property:
    """A property from a packaged model, or one of your own.

    property: name of a target of the model
    model: packaged name or model folder; "": the packaged model for the property
    """

    property: str = "formation_energy_per_atom"
    model: str = ""
    name: ClassVar[str] = "property"
    columns: ClassVar[Mapping[str, str]] = {}

    def contents(self) -> str:
        """Hash of the weights."""
        return (model_info(self.model) if self.model else model_for(self.property)).sha256

    def run(self, crystal: Crystal) -> Steps:
        """One question."""
        (value,) = yield Ask(
            [as_tuple(crystal.atoms)], forces=False, stress=False, of=f"{PROPERTY}{self.property}@{self.model}"
        )
        return {self.property: value}


def together(several: Sequence[Steps]) -> Generator[Ask, Answers, list[Any]]:
    """The results of several sequences of steps of one crystal, advanced side by side. All ask for the same kind."""
    results: list[Any] = [None] * len(several)
    asks: dict[int, Ask] = {}

    def push(place: int, answers: Answers | None) -> None:
        try:
            asks[place] = next(several[place]) if answers is None else several[place].send(answers)
        except StopIteration as end:
            asks.pop(place, None)
            results[place] = end.value

    for place in range(len(several)):
        push(place, None)
    while asks:
        places, first = list(asks), next(iter(asks.values()))
        answers = yield dataclasses.replace(first, structures=[s for ask in asks.values() for s in ask.structures])
        for place in places:
            n = len(asks[place].structures)
            push(place, answers[:n])
            answers = answers[n:]
    return results


def task_names() -> list[str]:
    """Names of all tasks, those of other packages included."""
    return sorted({*_HOMES, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def make_tasks(wanted: str | Task | Sequence[str | Task], options: Mapping[str, Any] | None = None) -> list[Task]:
    """Tasks from names such as "relax", "property:band_gap", "my_module.MyTask", or tasks.

    Args:
        wanted: in the order in which they run; a text may hold several with commas. What follows a colon is the
            first option of the task.
        options: by "task.option", such as {"relax.fmax": 0.01}.

    Raises:
        ValueError: no such task or option, with the nearest name, or a value that does not fit.
    """
    items = [wanted] if isinstance(wanted, str) or hasattr(wanted, "run") else list(wanted)
    expanded: list[Any] = []
    for item in items:
        expanded += [p.strip() for p in item.split(",") if p.strip()] if isinstance(item, str) else [item]
    if not expanded:
        raise ValueError(f"tasks: wanted at least one of {', '.join(task_names())}")
    left = dict(options or {})
    tasks = [item if not isinstance(item, str) else _make(item, left) for item in expanded]
    names = [item.partition(":")[0] for item in expanded if isinstance(item, str)]
    for key in left:
        task = key.rpartition(".")[0]
        if task not in names:
            raise ValueError(f"options: {key!r} names no task of this run; they are {', '.join(names)}")
    return tasks


def _make(text: str, options: Mapping[str, Any]) -> Task:
    name, colon, first = text.partition(":")
    kind = _task_class(name)
    fields = {f.name: f for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    values = {key.rpartition(".")[2]: value for key, value in options.items() if key.rpartition(".")[0] == name}
    if colon:
        if not fields:
            raise ValueError(f"tasks: {name} has no options, got {text!r}")
        values[next(iter(fields))] = first
    for key in values:
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(fields) or 'none'}"
            raise ValueError(f"options: {name} has no option {key!r}; {hint}")
    made: Task = kind(**{key: _fitting(f"{name}.{key}", value, fields[key].default) for key, value in values.items()})
    return made


def _fitting(name: str, value: Any, default: Any) -> Any:
    """The value in the type of the default; texts of a command line become numbers and flags."""
    if isinstance(value, str) and isinstance(default, (bool, int, float)):
        try:
            value = json.loads(value.lower())
        except ValueError as error:
            raise ValueError(f"options: {name} wants {type(default).__name__}, got {value!r}") from error
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, (bool, int, float, str)) and type(value) is not type(default):
        raise ValueError(f"options: {name} wants {type(default).__name__}, got {value!r}")
    return value


def _task_class(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(f"ase_potnet.screening.{module}"), attribute)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return point.load()
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(import_from_here(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"tasks: no class {attribute} in a module {module} ({error})") from error
    near = get_close_matches(name, task_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"tasks: there is no task {name!r}; {hint} There are {', '.join(task_names())}")


def units(settings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Units of the values of tasks, from their ``settings_of``; none of tasks or models that are not installed."""
    found: dict[str, str] = {}
    for entry in settings:
        with contextlib.suppress(ValueError):
            found.update(_task_class(entry.get("class", entry["task"])).columns)
            if entry["task"] == Property.name:
                info = model_info(entry["model"]) if entry["model"] else model_for(entry["property"])
                found.update({target.name: target.unit for target in info.targets})
    return found


def settings_of(task: Task) -> dict[str, Any]:
    """Name and options of a task, as JSON."""
    options: dict[str, Any] = dataclasses.asdict(task) if dataclasses.is_dataclass(task) else {}
    contents = getattr(task, "contents", None)  # a hash of what lies behind names of files and models
    own = {} if task.name in task_names() else {"class": f"{type(task).__module__}.{type(task).__qualname__}"}
    return {"task": task.name, **own, **options} | ({} if contents is None else {"contents": contents()})
