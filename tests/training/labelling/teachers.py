"""Calculators for the tests, written to a file that worker processes import: they count calls, fail, hang, die."""

MODULE = '''
import os, subprocess, time
from pathlib import Path
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones


class Logged(EMT):
    """EMT that takes its time and writes every calculation, and its process, to a file."""

    def __init__(self, log, seconds=0.0, **options):
        super().__init__(**options)
        self.log, self.seconds = Path(log + ".txt"), seconds

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        time.sleep(self.seconds)
        super().calculate(atoms, properties, system_changes)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {atoms.positions.sum()!r}\\n")


class Faulty(LennardJones):
    """Fails in one way for each element."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.converged = True
        symbol = atoms.symbols[0]
        if symbol == "Cu":
            raise RuntimeError("SCF\\n blew up")
        if symbol == "Ni":
            self.converged = False
        if symbol == "Pd":
            self.results["forces"] = self.results["forces"] * np.nan
        if symbol == "Pt":
            self.results["forces"] = self.results["forces"] + [30.0, 40.0, 0.0]
        if symbol == "Ag":
            os._exit(3)
        if symbol == "Au":
            raise SystemExit("licence expired")
        if symbol == "Al":
            self.results["stress"] = np.full(6, np.inf)
        if symbol == "Pb":
            raise PropertyNotImplementedError("no lead")


class WithFolder(LennardJones):
    """Wants a Path as its folder, as calculators on files in ASE's newer form do; starts a program that it must end."""

    directory = Path()  # an attribute, not the property of older calculators

    def __init__(self, program="", **options):
        super().__init__(**options)
        self.directory, self._directory, self.program = Path(), ".", program

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.directory.mkdir(parents=True, exist_ok=True)
        super().calculate(atoms, properties, system_changes)
        if self.program:
            process = subprocess.Popen(["sleep", "300"])
            Path(self.program).write_text(str(process.pid))
            process.wait()
        process = subprocess.Popen(["sleep", "300"])
        process.terminate()
        process.wait(20)  # raises unless the signal reaches it


class NoStress(LennardJones):
    implemented_properties = ["energy", "forces"]


class EnergyOnly(LennardJones):
    implemented_properties = ["energy"]


class FullStress(LennardJones):
    """Gives the stress as a matrix."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        xx, yy, zz, yz, xz, xy = self.results["stress"]
        self.results["stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


class FreeEnergy(LennardJones):
    """Smearing: the free energy is another number than the energy."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["free_energy"] = self.results["energy"] - 1.0


class Threads(LennardJones):
    """The energy is the number of threads asked for."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(os.environ["OMP_NUM_THREADS"])


def die():
    os._exit(7)


def not_a_calculator():
    return 3
'''
