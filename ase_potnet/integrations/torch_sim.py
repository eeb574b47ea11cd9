"""The potential as a model of torch-sim: molecular dynamics and relaxation of many systems on one GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_sim.models.interface import ModelInterface

from ase_potnet.evaluation import load_potential
from ase_potnet.graph import AtomsBatch
from ase_potnet.models.derivatives import differentiate
from ase_potnet.pretrained.format import pick_device, read_dtype


class PotNetModel(ModelInterface):  # type: ignore[misc]  # torch-sim is optional
    """What torch-sim's runners want: ``ts.optimize(crystals, model=PotNetModel(), ...)``.

    Args:
        model: packaged name, model folder, or a loaded model (which is copied).
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        dtype: of states and results, torch.float64 or torch.float32, or its name.
        compute_forces, compute_stress: without them the energy takes a third of the time.
        tolerance: absolute error of the lattice sums; None for the model's own.

    Results: energy (n_systems,) in eV, forces (n_atoms, 3) in eV/Å, stress (n_systems, 3, 3) in eV/Å^3, positive
    under tension; NaN where not all three directions are periodic.

    Raises ValueError naming model, device or dtype; in a calculation for elements that the model does not know and
    for systems whose energy is not finite.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = "default",
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = torch.float64,
        compute_forces: bool = True,
        compute_stress: bool = True,
        tolerance: float | None = None,
    ) -> None:
        super().__init__()
        network: Any = load_potential(model, device=device, dtype=dtype)
        if tolerance is not None:
            network.set_tolerance(tolerance)
        self.network = network
        self._device, self._dtype = pick_device(device), read_dtype(dtype)
        self._compute_forces, self._compute_stress = compute_forces, compute_stress

    @property
    def compute_forces(self) -> bool:
        """Whether forces are among the results."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    @property
    def compute_stress(self) -> bool:
        """Whether the stress is among the results."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        self._compute_stress = wanted

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Energy, forces and stress of every system of a ``SimState``."""
        batch = _batch(state)
        found = differentiate(self.network, batch, forces=self.compute_forces, stress=self.compute_stress)
        if not bool(torch.isfinite(found.energy).all()):
            wrong = torch.nonzero(~torch.isfinite(found.energy))[:, 0].tolist()
            raise ValueError(f"state: the energies of the systems {wrong} are not finite; are atoms too close?")
        results = {"energy": found.energy.to(self._dtype)}
        if found.forces is not None:
            results["forces"] = found.forces.detach()
        if found.stress is not None:
            results["stress"] = found.stress.detach()
        return results


def _batch(state: Any) -> AtomsBatch:
    """torch-sim's state, whose cells hold lattice vectors as columns and whose systems share their periodicity."""
    cell = state.row_vector_cell
    flags = torch.as_tensor(state.pbc, dtype=torch.bool).cpu()
    return AtomsBatch(
        numbers=state.atomic_numbers.to(torch.int64),
        positions=state.positions.detach(),
        cell=cell.detach().contiguous(),
        pbc=flags.broadcast_to(len(cell), 3).contiguous(),
        batch=state.system_idx.to(torch.int64),
    )
