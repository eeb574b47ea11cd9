"""Energy, forces and stress of a small crystal as one function compiled ahead of time, kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ase_potnet
from ase_potnet.graph import AtomsBatch
from ase_potnet.models.derivatives import Predictions, differentiate
from ase_potnet.models.equivariant_potnet import EquivariantPotNet
from ase_potnet.models.layers import recorded_for_compiler
from ase_potnet.models.local_environment import Places
from ase_potnet.models.tabulated_sums import SumTables, TabulatedPotentials, make_tables

LARGEST = 64  # atoms up to which one function of everything, pairs included, is worth it
_LOG = logging.getLogger("ase_potnet")
Flags = tuple[bool, ...]


class CompiledStep:
    """Predictions of an ``EquivariantPotNet`` for one crystal of 2 to 64 atoms by a function compiled by TorchInductor.

    The function serves all sizes and cells. It is made at the first call, in minutes, and kept in the user's cache
    folder (``$XDG_CACHE_HOME/ase_potnet``), from where later runs load it in well under a second. Where compiling
    fails, as without a C++ compiler, a warning says so once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self._functions: dict[Flags, Any] = {}
        self._tables: tuple[bytes, SumTables, Flags] | None = None
        self._known: Tensor | None = None  # numbers whose elements the model knows
        self._reason = _reason_against(model)
        if self._reason:
            warnings.warn(f"compile: goes on without, {self._reason}", stacklevel=3)

    def __call__(self, atoms: AtomsBatch, places: Places) -> Predictions | None:
        """Energies, forces and stress; None where the model itself has to do it.

        places: all neighbours up to the model's cut-off. Raises ValueError for elements that the model does not know.
        """
        if self._reason or atoms.n_structures != 1 or not atoms.pbc.all() or not 2 <= len(atoms.numbers) <= LARGEST:
            return None
        if self._known is not atoms.numbers:
            self.model.require_elements(atoms.numbers)
            self._known = atoms.numbers
        try:
            tables, flags = self._sum_tables(atoms)
            if flags not in self._functions:
                self._functions[flags] = _load_or_compile(self.model, flags, atoms.dtype)
            return Predictions(*self._functions[flags](_inputs(atoms, places, tables)))
        except Exception as error:
            reason = str(error).strip().splitlines()
            self._reason = f"{type(error).__name__}: {reason[0] if reason else ''}"
            warnings.warn(f"compile: goes on without, {self._reason}", stacklevel=2)
            return None

    def _sum_tables(self, atoms: AtomsBatch) -> tuple[SumTables, Flags]:
        """Tables of the lattice sums, kept while the cell stays the same."""
        potentials = self.model.site_potentials
        key = atoms.cell.numpy().tobytes() + str((len(atoms.numbers), potentials.tolerance)).encode()
        if self._tables is None or self._tables[0] != key:
            self._tables = (key, *make_tables(potentials, atoms))
        return self._tables[1:]

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledStep, (self.model,)


def _reason_against(model: nn.Module) -> str:
    """Why a model cannot be compiled, or nothing."""
    if not isinstance(model, EquivariantPotNet):
        return f"{type(model).__name__} has no compiled form"
    if not model.config.n_sources or model.config.fields:
        return "the model has no complete potentials, or their fields"
    return "" if model.references.device.type == "cpu" else "only for the CPU"


def _step(model: EquivariantPotNet, complete: Flags) -> Callable[..., tuple[Tensor | None, ...]]:
    """The function to be compiled: tensors of ``_inputs`` to energy (1,), energies (T,), forces, stress (1, 3, 3)."""

    def step(
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        pbc: Tensor,
        senders: Tensor,
        images: Tensor,
        offsets: Tensor,
        cutoffs: Tensor,
        *tables: Tensor,
    ) -> tuple[Tensor | None, ...]:
        atoms = AtomsBatch(numbers, positions, cell, pbc, torch.zeros_like(numbers))
        places = Places(senders, images, offsets, cutoffs)
        potentials = TabulatedPotentials(model.site_potentials, SumTables(*tables), complete)

        def energies_of(moved: AtomsBatch) -> Tensor:
            return model.energies_at(moved, [places], potentials)

        with recorded_for_compiler():
            found = differentiate(energies_of, atoms)
        return found.energy, found.energies, found.forces, found.stress

    return step


def _inputs(atoms: AtomsBatch, places: Places, tables: SumTables) -> list[Tensor]:
    assert places.images is not None
    own = [atoms.numbers, atoms.positions, atoms.cell, atoms.pbc]
    own += [places.senders, places.images, places.offsets, places.cutoffs]
    return own + list(vars(tables).values())


# names of the sizes that vary: T atoms, K places, M images, W waves, P pairs; fixed sizes as numbers
_SHAPES: tuple[tuple[str | int, ...], ...] = (
    ("T",),
    ("T", 3),
    (1, 3, 3),
    (1, 3),
    ("T", "K"),
    ("T", "K", 3),
    ("T", "K", 3),
    ("T", "K"),
    (3, 3),
    ("M", 3),
    ("W", 3),
    (5, 3),
    ("P",),
    ("P",),
    ("T", "T"),
)
_INTEGERS = (0, 4, 12, 13, 14)
_SIZES = {"T": 7, "K": 11, "M": 13, "W": 17, "P": 23}  # of the example: equal ones would be taken for the same


def _load_or_compile(model: EquivariantPotNet, complete: Flags, dtype: torch.dtype) -> Callable[..., list[Tensor]]:
    """The compiled function, from the cache folder if it is there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ase_potnet" / "compiled"
    path = folder / f"{_key(model, complete, dtype)}.pt2"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _LOG.warning("compiling the potential, once for this machine: this takes minutes (%s)", path)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            _compile(_step(model, complete), dtype, made)
            made.replace(path)
    run: Callable[..., list[Tensor]] = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1).run
    return run


def _compile(step: Callable[..., Any], dtype: torch.dtype, path: Path) -> None:
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    shapes = [[size if isinstance(size, int) else _SIZES[size] for size in shape] for shape in _SHAPES]
    example = [torch.zeros(shape, dtype=dtype) for shape in shapes]
    for place in _INTEGERS:
        example[place] = example[place].long()
    example[3] = example[3].bool()
    sizes = {name: torch.export.Dim(name, min=2) for name in _SIZES}
    varying = [{axis: sizes[size] for axis, size in enumerate(shape) if size in sizes} for shape in _SHAPES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler about itself
        graph = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
        exported = torch.export.export(graph, tuple(example), dynamic_shapes=varying)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


def _key(model: EquivariantPotNet, complete: Flags, dtype: torch.dtype) -> str:
    """Names what the compiled function depends on: weights, formulas, libraries, processor."""
    digest = hashlib.sha256()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    for source in sorted(Path(ase_potnet.__file__).parent.glob("*/**/*.py")):
        digest.update(source.read_bytes())
    machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), *_processor_flags())
    settings = (model.config, complete, dtype, torch.get_num_threads(), torch.__version__, version("ase-potnet"))
    digest.update(repr((settings, machine)).encode())
    return digest.hexdigest()[:32]


def _processor_flags() -> list[str]:
    """What the processor can do, where the system says so."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return [line for line in lines if line.startswith(("flags", "Features"))][:1]
