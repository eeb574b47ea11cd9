"""The potential in tools around ASE: the command line, and i-PI's protocol."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.cli.main import main

import ase_potnet
from ase_potnet import PotNetCalculator


def test_ase_run_knows_it_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.8)
    ase.io.write(tmp_path / "salt.xyz", atoms)
    ase_potnet.register()
    monkeypatch.chdir(tmp_path)
    main(args=["run", "potnet", "salt.xyz", "--properties", "efs", "--output", "out.json"])
    found = ase.io.read("out.json")
    atoms.calc = PotNetCalculator()
    assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(found.get_stress(), atoms.get_stress(), atol=1e-9)


class Client(threading.Thread):
    """ASE's client of the protocol, in place of the process that a server would start."""

    returncode = None

    def __init__(self, atoms: Any, unixsocket: str) -> None:
        super().__init__(daemon=True)
        self.atoms, self.client = atoms, SocketClient(unixsocket=unixsocket, timeout=60)

    def run(self) -> None:
        self.client.run(self.atoms, use_stress=True)

    def poll(self) -> int | None:
        return None if self.is_alive() else 0

    def wait(self) -> int:
        self.join(60)
        return 0


def test_client_of_the_protocol_of_i_pi(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    own = atoms.copy()
    own.calc = PotNetCalculator()

    def launch(system: Any, properties: Any, port: Any, unixsocket: str) -> Client:
        client = Client(own.copy(), unixsocket)
        client.atoms.calc = PotNetCalculator()
        client.start()
        return client

    name = f"potnet-{abs(hash(tmp_path))}"
    with SocketIOCalculator(unixsocket=name, timeout=60, launch_client=launch) as server:
        atoms.calc = server
        for _ in range(2):
            assert atoms.get_potential_energy() == pytest.approx(own.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(atoms.get_forces(), own.get_forces(), atol=1e-8)
            np.testing.assert_allclose(atoms.get_stress(), own.get_stress(), atol=1e-8)
            for moved in (atoms, own):
                moved.positions[0] += (0.02, 0.0, -0.01)
