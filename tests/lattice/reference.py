"""Lattice sums to 25 digits with mpmath: the oracle of the tests, independent of torch.

Every potential is a mixture of Gaussians (``gaussian_mixture``),

    phi(r) = sum_c C int_0^inf t^(s-1) exp(-r^2 t - b/t) dt,

so that its lattice sum is the integral over t of a theta function. Above t = eta the sum over lattice
vectors is taken as it stands, below it after Poisson's formula on the span of the d periodic directions:

    sum_n exp(-|v + nL|^2 t) = exp(-rho^2 t) (pi/t)^(d/2) / V_d sum_k cos(k.v) exp(-k^2 / (4 t)),

rho the distance of v from that span, V_d the d-dimensional volume of the cell. What remains are integrals

    I(q, A, B, T) = int_0^T t^(q-1) exp(-A t - B/t) dt

(the short range is one of them too, through t -> 1/t). They exist for B > 0 and any q. For B = 0, the k = 0
term of 1/r^n with q = (n - d)/2, the pole of int_0 t^(q-1) dt is dropped: T^q/q for q < 0, the analytic
continuation in n (neutralising background), and ln T for q = 0, the Hadamard finite part at n = d with t
measured in 1/Angstrom^2.

``python tests/lattice/reference.py`` rewrites ``reference_values.json`` (20 minutes on one core).
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import mpmath as mp
import numpy as np

VALUES_FILE = Path(__file__).with_name("reference_values.json")
DIGITS = 25  # promised by the oracle
mp.mp.dps = 38  # carried along
DROPPED = 70  # terms below exp(-70) = 4e-31 of the largest are left out
ZERO_DISTANCE = 1e-10  # the term that is left out of the sum

# -- potentials ------------------------------------------------------------------------------------


def gaussian_mixture(potential: str) -> list[tuple]:
    """Terms (C, s, b) of a potential, written as the constructor call of ``ase_potnet.lattice``."""
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", potential).groups()
    parameters = [mp.mpf(float(argument)) for argument in arguments.split(",") if argument]
    if name == "Coulomb":
        return [_inverse_power(1)]
    if name == "InversePower":
        return [_inverse_power(int(parameters[0]))]
    if name == "London":
        return [_inverse_power(6)]
    if name == "Pauli":
        return [_exponential(parameters[0])]
    if name == "ScreenedCoulomb":
        return [_yukawa(parameters[0])]
    if name == "LennardJones":
        (sigma,) = parameters
        return [_inverse_power(12, 4 * sigma**12), _inverse_power(6, -4 * sigma**6)]
    if name == "Morse":
        alpha, r_e = parameters
        return [
            _exponential(2 * alpha, mp.exp(2 * alpha * r_e)),
            _exponential(alpha, -2 * mp.exp(alpha * r_e)),
        ]
    raise ValueError(f"unknown potential {potential}")


def _inverse_power(n: int, factor=1) -> tuple:
    return factor / mp.gamma(mp.mpf(n) / 2), mp.mpf(n) / 2, mp.mpf(0)


def _yukawa(alpha, factor=1) -> tuple:
    return factor / mp.sqrt(mp.pi), mp.mpf(1) / 2, alpha**2 / 4


def _exponential(alpha, factor=1) -> tuple:
    """exp(-alpha r) is minus the derivative of the Yukawa potential with respect to alpha."""
    return factor * alpha / (2 * mp.sqrt(mp.pi)), -mp.mpf(1) / 2, alpha**2 / 4


def real_space(potential: str, r) -> mp.mpf:
    """The potential itself, from its textbook form: the check of ``gaussian_mixture``."""
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", potential).groups()
    parameters = [mp.mpf(float(argument)) for argument in arguments.split(",") if argument]
    return {
        "Coulomb": lambda: 1 / r,
        "InversePower": lambda n: r**-n,
        "London": lambda: r**-6,
        "Pauli": lambda alpha: mp.exp(-alpha * r),
        "ScreenedCoulomb": lambda alpha: mp.exp(-alpha * r) / r,
        "LennardJones": lambda sigma: 4 * ((sigma / r) ** 12 - (sigma / r) ** 6),
        "Morse": lambda alpha, r_e: mp.exp(-2 * alpha * (r - r_e)) - 2 * mp.exp(-alpha * (r - r_e)),
    }[name](*parameters)


# -- integrals over t ------------------------------------------------------------------------------


def integrals(q, A, T, terms: list[tuple]):
    """sum of w I(q, A, B, T) over the terms (w, B), all with B > 0."""
    if A == 0:
        return mp.fsum(w * B**q * mp.gammainc(-q, B / T) for w, B in terms)
    if not terms:
        return mp.mpf(0)

    def integrand(x):  # t = T / x
        kept = ((w, B * x / T) for w, B in terms)
        return x ** (-q - 1) * mp.exp(-A * T / x) * mp.fsum(w * mp.exp(-y) for w, y in kept if y < DROPPED)

    end = 1 + DROPPED * T / min(B for _, B in terms)
    panels = [mp.mpf(1)]
    while panels[-1] < end:  # the integrand varies on the scale of x itself
        panels.append(panels[-1] * mp.mpf("1.6"))
    return T**q * mp.quad(integrand, panels, method="gauss-legendre", maxdegree=5)


def finite_part(q, A, T):
    """I(q, A, 0, T) with the pole of t^(q-1) at t = 0 dropped."""
    if A == 0:
        return mp.log(T) if q == 0 else T**q / q
    if q == 0:
        return -mp.e1(A * T) - mp.euler - mp.log(A)
    return A**-q * (mp.gamma(q) - mp.gammainc(q, A * T))


# -- lattice vectors -------------------------------------------------------------------------------


class PeriodicSpan:
    """The lattice of the periodic directions and a displacement split into it and across it."""

    def __init__(self, displacement, cell, pbc) -> None:
        v = mp.matrix([float(x) for x in displacement])
        rows = [[float(x) for x in row] for row, periodic in zip(cell, pbc, strict=True) if periodic]
        self.dimension = len(rows)
        if not rows:
            self.rho2 = _dot(v, v)
            return
        lattice = mp.matrix(rows)
        self.metric = lattice * lattice.T
        self.inverse_metric = self.metric**-1
        self.volume = mp.sqrt(mp.det(self.metric))
        self.fractional = list(self.inverse_metric * (lattice * v))
        across = v - lattice.T * mp.matrix(self.fractional)
        self.rho2 = mp.mpf(0) if self.dimension == 3 else _dot(across, across)
        if self.rho2 < ZERO_DISTANCE**2:
            self.rho2 = mp.mpf(0)

    def images(self, square_radius):
        """(n, |v + nL|^2 without the part across the span) within a radius."""
        points = _points_within(self.metric, self.inverse_metric, self.fractional, square_radius)
        return [(n, _form(self.metric, [a + b for a, b in zip(n, self.fractional, strict=True)])) for n in points]

    def waves(self, square_radius, phase):
        """(n, |k|^2) of the vectors k = 2 pi (n + phase) reciprocal cell within a radius."""
        scale = 4 * mp.pi**2
        points = _points_within(self.inverse_metric, self.metric, phase, square_radius / scale)
        return [(n, scale * _form(self.inverse_metric, [a + b for a, b in zip(n, phase, strict=True)])) for n in points]


def _points_within(metric, inverse_metric, shift, square_radius):
    """Integer points n with (n + shift) metric (n + shift) <= square_radius, found in float64."""
    dimension = len(shift)
    shift = np.array([float(x) for x in shift])
    form = np.array(metric.tolist(), dtype=float)
    reach = np.sqrt(float(square_radius) * np.diag(np.array(inverse_metric.tolist(), dtype=float)))
    ranges = [np.arange(np.floor(-s - r), np.ceil(-s + r) + 1) for s, r in zip(shift, reach, strict=True)]
    points = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, dimension)
    square = np.einsum("ni,ij,nj->n", points + shift, form, points + shift)
    return points[square <= float(square_radius) * (1 + 1e-9)].astype(int).tolist()


def _dot(a, b):
    return mp.fsum(x * y for x, y in zip(a, b, strict=True))


def _form(metric, x):
    pairs = itertools.product(range(len(x)), repeat=2)
    return mp.fsum(metric[i, j] * x[i] * x[j] for i, j in pairs)


# -- sums ------------------------------------------------------------------------------------------


def lattice_sum(potential: str, displacement, cell, pbc=(True,) * 3, phase=(0, 0, 0), split=1):
    """sum_n exp(-2 pi i phase.n) phi(|v + nL|) without the term of zero distance.

    ``split`` multiplies the default eta = pi / V_d^(2/d); the result must not depend on it. Real if the
    phase is zero in every periodic direction, otherwise complex.
    """
    mixture = gaussian_mixture(potential)
    span = PeriodicSpan(displacement, cell, pbc)
    if span.dimension == 0:
        r = mp.sqrt(span.rho2)
        return real_space(potential, r) if r > ZERO_DISTANCE else mp.mpf(0)
    phase = [mp.mpf(float(x)) for x, periodic in zip(phase, pbc, strict=True) if periodic]
    eta = split * mp.pi / span.volume ** (mp.mpf(2) / span.dimension)
    images = [(_turn(-_dot(phase, n)), square + span.rho2) for n, square in span.images(DROPPED / eta)]
    waves = [
        (_turn(_dot([a + b for a, b in zip(n, phase, strict=True)], span.fractional)), square)
        for n, square in span.waves(4 * eta * DROPPED, phase)
    ]
    total = mp.fsum(C * (_short_range(s, b, eta, images) + _long_range(s, b, eta, waves, span)) for C, s, b in mixture)
    return total if any(x != mp.floor(x) for x in phase) else mp.re(total)


def _turn(x):
    return mp.expjpi(2 * x)


def _short_range(s, b, eta, images):
    """int_eta^inf of the images, minus int_0^eta of the image at zero distance."""
    terms = [(w, square) for w, square in images if square > ZERO_DISTANCE**2]
    result = integrals(-s, b, 1 / eta, terms)
    for w, square in images:
        if square <= ZERO_DISTANCE**2:
            result -= w * (integrals(s, mp.mpf(0), eta, [(1, b)]) if b else finite_part(s, 0, eta))
    return result


def _long_range(s, b, eta, waves, span):
    """int_0^eta of the waves; the one of zero length needs the finite part where b = 0."""
    q = s - mp.mpf(span.dimension) / 2
    terms = [(w, square / 4 + b) for w, square in waves if square / 4 + b > 0]
    result = integrals(q, span.rho2, eta, terms)
    if len(terms) < len(waves):
        result += finite_part(q, span.rho2, eta)
    return mp.pi ** (mp.mpf(span.dimension) / 2) / span.volume * result


def direct_sum(potential: str, displacement, cell, pbc=(True,) * 3, radius=20.0):
    """The plain sum up to a radius: converged for exponential potentials and high powers only."""
    span = PeriodicSpan(displacement, cell, pbc)
    distances = [mp.sqrt(square + span.rho2) for _, square in span.images(radius**2)]
    return mp.fsum(real_space(potential, r) for r in distances if r > ZERO_DISTANCE)


# -- the table of cases ----------------------------------------------------------------------------

POTENTIALS = (
    "Coulomb()",
    "InversePower(2)",
    "InversePower(3)",
    "InversePower(5)",
    "London()",
    "InversePower(12)",
    "Pauli(3.0)",
    "Pauli(0.5)",
    "ScreenedCoulomb(0.7)",
    "LennardJones(1.5)",
    "Morse(1.2, 1.6)",
)
TRICLINIC = [[4.1, 0.3, -0.2], [-0.9, 5.2, 0.4], [1.1, 0.7, 6.3]]
ALL_PBC = tuple(itertools.product([True, False], repeat=3))
BULK, SLAB, WIRE = (True, True, True), (True, True, False), (True, False, False)


def _cells() -> dict[str, tuple]:
    """Cells and the periodicities in which each is used."""
    triclinic = np.array(TRICLINIC)
    skew = np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]])  # unimodular: the same lattice
    slab = triclinic.copy()
    slab[2] = 0.0
    return {
        "cubic": (np.diag([4.2, 4.2, 4.2]), (BULK, SLAB, WIRE)),
        "triclinic": (triclinic, ALL_PBC),
        "skewed basis": (skew @ triclinic, (BULK, (False, True, True))),
        "left-handed": (triclinic[[1, 0, 2]], (BULK, SLAB, (False, False, True))),
        "c/a = 8": (np.diag([3.1, 3.1, 24.8]), (BULK, (True, False, True))),
        "a/c = 8, sheared": (
            np.array([[24.8, 0.0, 0.0], [1.5, 20.0, 0.0], [1.0, 0.8, 3.1]]),
            (BULK,),
        ),
        "c/a = 30": (np.array([[2.6, 0.0, 0.0], [1.3, 2.4, 0.0], [0.4, 0.9, 78.0]]), (BULK,)),
        "zero third vector": (slab, (SLAB, (False, True, False))),
    }


def _displacements(cell: np.ndarray) -> list[list[float]]:
    """The self image, a point near the origin, one inside, one far outside the cell."""
    near = [0.9, -1.1, 0.7]
    inside = np.array([0.37, 0.61, 0.45]) @ np.where(cell.any(1, keepdims=True), cell, np.eye(3))
    outside = inside + np.array([3.0, -2.0, 1.0]) @ cell + [0.2, 0.3, 1.9]
    return [[0.0] * 3, near, inside.round(6).tolist(), outside.round(6).tolist()]


def cases() -> list[dict]:
    """Geometries of the table; each is evaluated with all POTENTIALS."""
    return [
        {"cell_name": name, "cell": cell.tolist(), "pbc": list(pbc), "displacements": _displacements(cell)}
        for name, (cell, periodicities) in _cells().items()
        for pbc in periodicities
    ]


def epstein_cases() -> list[dict]:
    """Epstein zeta functions with a phase, at and around the poles of the sums without one."""
    phases = ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.13, -0.42, 0.27], [1.0, 0.0, -2.25])
    return [
        {"cell": TRICLINIC, "pbc": list(pbc), "n": n, "displacement": displacement, "phase": phase}
        for pbc in (BULK, (True, False, True), (False, True, False))
        for n in (1, 2, 3, 6)
        for displacement in ([0.0] * 3, (np.where(pbc, [0.3, -0.4, 2.2], 0.0) @ TRICLINIC).tolist())
        for phase in phases
    ]


def case_values(case: dict) -> dict[str, list[str]]:
    """Potential -> one value for each displacement, as strings of DIGITS digits."""
    return {
        potential: [
            mp.nstr(lattice_sum(potential, v, case["cell"], case["pbc"]), DIGITS) for v in case["displacements"]
        ]
        for potential in POTENTIALS
    }


def epstein_value(case: dict) -> list[str]:
    """Real and imaginary part as strings of DIGITS digits."""
    value = lattice_sum(f"InversePower({case['n']})", case["displacement"], case["cell"], case["pbc"], case["phase"])
    return [mp.nstr(part(value), DIGITS) for part in (mp.re, mp.im)]


def main() -> None:
    table = {
        "pair_sums": [case | {"values": case_values(case)} for case in cases()],
        "epstein_zeta": [case | {"value": epstein_value(case)} for case in epstein_cases()],
    }
    VALUES_FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
