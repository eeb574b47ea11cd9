"""One process of a labelling run: makes frames, runs its calculator, sends back labels or reasons."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from ase_potnet.readers.structures import check

from ..data.label_shards import Failure, Frame, Result
from .calculators import CalculatorSpec, describe, make_calculator
from .perturb import apply, draw_kind, frame_seed, too_close
from .recipe import Limits, Recipe

REASON_LENGTH = 500  # characters kept of a reason


@dataclass(frozen=True)
class Job:
    """One frame to make and label: `atoms` is the structure, the rest as in `Frame`."""

    material_id: str
    group: str
    index: int
    frame: int
    atoms: Atoms


@dataclass(frozen=True)
class Settings:
    """What every worker needs. `scratch`: folder for the files of calculators that write some."""

    spec: CalculatorSpec
    recipe: Recipe
    scratch: Path


def work(connection: Connection, settings: Settings, number: int) -> None:
    """The body of a worker process.

    Sends first a description of its calculator (worker 0; the others an empty one), or a text that says why there is
    none; then, for every list of jobs that it receives, one result after the other. Ends when the other end of the
    connection is gone. It leads a process group of its own, with the programs that its calculator starts.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal does not reach it: the main process decides
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: None)  # not SIG_IGN, which the programs would inherit
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        calculator = make_calculator(settings.spec)
        _move_files(calculator, settings.scratch / f"worker-{number}")
        connection.send(describe(settings.spec, calculator) if number == 0 else {})
    except Exception as error:
        connection.send(str(error) if isinstance(error, ValueError) else f"calculator: {type(error).__name__}: {error}")
        return
    try:
        while True:
            for job in connection.recv():
                connection.send(label_frame(job, settings.recipe, calculator))
    except (EOFError, OSError):  # the run has ended
        return


def _end_with_parent() -> None:
    """End this process, in the middle of a calculation if need be, when the one that started it is gone."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        kill_group(os.getpid())
        os._exit(1)


def kill_group(leader: int) -> None:
    """Kill a worker with the programs that its calculator has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it is gone, or has not come to lead a group
            os.killpg(leader, signal.SIGKILL)


def _move_files(calculator: Any, folder: Path) -> None:
    """Give calculators that write files a folder of their own."""
    directory = getattr(calculator, "directory", None)
    if isinstance(directory, (str, Path)) and not Path(directory).is_absolute():
        calculator.directory = type(directory)((folder / directory).absolute())  # some want text, some a Path


def label_frame(job: Job, recipe: Recipe, calculator: Any) -> Result:
    """The frame of a job with its labels, or why it has none."""
    seed = frame_seed(recipe.seed, job.material_id, job.frame)
    rng = np.random.default_rng(seed)
    name = "none"

    def failure(reason: str) -> Failure:
        text = " ".join(reason.split())[:REASON_LENGTH]
        return Failure(job.material_id, name, job.frame, seed, job.index, text)

    try:
        if len(job.atoms) > recipe.limits.max_atoms:
            return failure(f"more than {recipe.limits.max_atoms} atoms ({len(job.atoms)})")
        name = draw_kind(job.atoms, recipe, job.frame, rng)
        atoms = apply(recipe.kinds[name], job.atoms, recipe.limits.max_atoms, rng)
        check(atoms)
        if too_close(atoms, recipe.limits.min_distance):
            return failure(f"atoms nearer than {recipe.limits.min_distance} Å")
    except Exception as error:
        return failure(f"perturbation: {type(error).__name__}: {error}")
    bare = atoms.copy()
    try:
        energy, forces, stress = calculate(atoms, calculator)
    except (Exception, SystemExit) as error:  # calculators raise anything
        return failure(f"{type(error).__name__}: {error}")
    if reason := refusal(len(bare), energy, forces, stress, recipe.limits):
        return failure(reason)
    return Frame(
        material_id=job.material_id,
        group=job.group,
        kind=name,
        frame=job.frame,
        seed=seed,
        index=job.index,
        numbers=bare.numbers,
        positions=bare.positions,
        cell=bare.cell.array,
        pbc=bare.pbc,
        energy=float(energy),
        forces=forces,
        stress=stress,
    )


def calculate(atoms: Atoms, calculator: Any) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Energy (eV), forces (eV/Å) and stress (3, 3) (eV/Å^3) of a structure; no stress unless it is periodic in all
    directions and the calculator has one.

    Raises:
        RuntimeError: the calculation did not converge.
        Exception: whatever the calculator raises.
    """
    if callable(reset := getattr(calculator, "reset", None)):
        reset()  # results must not depend on the frame before
    atoms.calc = calculator
    energy = np.asarray(calculator.get_property("energy", atoms), dtype=np.float64).reshape(-1)
    forces = np.array(calculator.get_property("forces", atoms), dtype=np.float64)
    stress = None
    implemented = getattr(calculator, "implemented_properties", ("stress",))
    if atoms.pbc.all() and "stress" in implemented:
        try:
            stress = np.asarray(calculator.get_property("stress", atoms), dtype=np.float64)
        except PropertyNotImplementedError:
            stress = None
    if stress is not None:
        stress = voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress.reshape(3, 3).copy()
    if len(energy) != 1:
        raise RuntimeError(f"the calculator gave {len(energy)} energies")
    if _converged(calculator) is False:
        raise RuntimeError("not converged")
    return float(energy[0]), forces, stress


def _converged(calculator: Any) -> bool | None:
    """Whether the calculator says that its calculation converged; None if it says nothing."""
    value = getattr(calculator, "results", {}).get("converged", getattr(calculator, "converged", None))
    return bool(value) if isinstance(value, (bool, np.bool_, int)) else None


def refusal(
    n_atoms: int, energy: float, forces: np.ndarray[Any, Any], stress: np.ndarray[Any, Any] | None, limits: Limits
) -> str | None:
    """Why labels cannot be used, or None."""
    if forces.shape != (n_atoms, 3):
        return f"forces of shape {forces.shape} for {n_atoms} atoms"
    for name, value in (("energy", energy), ("forces", forces), ("stress", stress)):
        if value is not None and not np.isfinite(value).all():
            return f"{name} not finite"
    largest = float(np.linalg.norm(forces, axis=1).max())
    if limits.max_force is not None and largest > limits.max_force:
        return f"force above {limits.max_force:g} eV/Å ({largest:.1f})"
    return None
