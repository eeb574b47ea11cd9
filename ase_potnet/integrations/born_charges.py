"""Born charges and dielectric tensor for the non-analytical correction (NAC) of polar crystals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.harmonic.dynamical_matrix import NacParams

_METHODS = ("gonze", "wang")  # of phonopy


def nac_parameters(ph: Phonopy, nac: str | Path | Mapping[str, Any]) -> NacParams:
    """phonopy's NAC parameters for the primitive cell of ``ph``.

    Args:
        nac: a BORN file, or a mapping with "born" and "dielectric" (a number or (3, 3)); "factor" and "method" as in
            phonopy. "born" holds charges, in e, by element ({"Na": 1.1, "Cl": -1.1}) or by atom of the unit cell or
            of the primitive cell, as numbers (N,) or tensors (N, 3, 3). They are made symmetric and neutral.

    Raises ValueError naming nac.
    """
    check_nac(nac)
    if not isinstance(nac, Mapping):
        return _read(ph, Path(nac))
    from phonopy.physical_units import get_calculator_physical_units
    from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

    dielectric = _dielectric(nac["dielectric"])
    charges, dielectric = symmetrize_borns_and_epsilon(_primitive_charges(ph, nac["born"]), dielectric, ph.primitive)
    factor = get_calculator_physical_units(None).nac_factor
    others = {"factor": factor} | {key: nac[key] for key in nac if key not in ("born", "dielectric")}
    return {"born": charges - charges.mean(axis=0), "dielectric": dielectric, **others}  # type: ignore[typeddict-item]


def check_nac(nac: str | Path | Mapping[str, Any]) -> None:
    """Raises ValueError for what cannot be right for any crystal."""
    if not isinstance(nac, Mapping):
        if not Path(nac).is_file():
            raise ValueError(f"nac: no file {nac}")
        return
    missing = {"born", "dielectric"} - set(nac)
    unknown = set(nac) - {"born", "dielectric", "factor", "method", "G_cutoff", "Lambda"}
    if missing or unknown:
        raise ValueError(f"nac: wanted a mapping with 'born' and 'dielectric', got the keys {sorted(nac)}")
    if nac.get("method", "gonze") not in _METHODS:
        raise ValueError(f"nac: wanted 'method' as one of {', '.join(_METHODS)}, got {nac['method']!r}")
    _dielectric(nac["dielectric"])
    for name in ("factor", "G_cutoff", "Lambda"):
        if nac.get(name) is not None:
            _finite(name, nac[name])
    born = nac["born"]
    for value in born.values() if isinstance(born, Mapping) else [born]:
        _finite("born", value)


def _dielectric(value: Any) -> NDArray[np.float64]:
    """The tensor (3, 3). Raises ValueError."""
    tensor = _finite("dielectric", value)
    tensor = tensor * np.eye(3) if tensor.ndim == 0 else tensor
    if tensor.shape != (3, 3):
        raise ValueError(f"nac: wanted 'dielectric' as a number or of shape (3, 3), got {tensor.shape}")
    if np.linalg.eigvalsh(tensor + tensor.T).min() <= 0:
        raise ValueError(f"nac: wanted a positive 'dielectric', got {value!r}")
    return tensor


def _finite(name: str, value: Any) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"nac: wanted '{name}' in numbers, got {value!r}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"nac: wanted '{name}' in finite numbers, got {value!r}")
    return array


def _read(ph: Phonopy, file: Path) -> NacParams:
    from phonopy.file_IO import parse_BORN
    from phonopy.physical_units import get_calculator_physical_units

    try:
        parameters = parse_BORN(ph.primitive, filename=file)
    except Exception as error:  # phonopy raises several kinds, none with the name of the file
        raise ValueError(f"nac: {file} is no BORN file for {ph.primitive.reduced_formula}: {error}") from error
    parameters.setdefault("factor", get_calculator_physical_units(None).nac_factor)
    return parameters


def _primitive_charges(ph: Phonopy, born: Any) -> NDArray[np.float64]:
    """Charge tensors of the primitive cell's atoms. (N, 3, 3)"""
    symbols = ph.primitive.symbols
    if isinstance(born, Mapping):
        absent = sorted(set(symbols) - set(born))
        if absent:
            raise ValueError(f"nac: 'born' has no charge for {', '.join(absent)}")
        tensors = [_finite("born", born[symbol]) for symbol in symbols]
        if any(tensor.shape not in ((), (3, 3)) for tensor in tensors):
            raise ValueError(f"nac: wanted charges of elements as numbers or 3 × 3 tensors, got {dict(born)!r}")
        values = np.array([tensor if tensor.ndim else tensor * np.eye(3) for tensor in tensors])
    else:
        values = np.atleast_1d(_finite("born", born))
        if len(values) == len(ph.unitcell) != len(symbols):
            atoms = [ph.supercell.u2u_map[ph.supercell.s2u_map[s]] for s in ph.primitive.p2s_map]
            values = values[atoms]
    if values.ndim == 1:
        values = values[:, None, None] * np.eye(3)
    if values.shape != (len(symbols), 3, 3):
        raise ValueError(
            f"nac: wanted 'born' for {len(ph.unitcell)} atoms of the unit or {len(symbols)} of the primitive cell, "
            f"as numbers or 3 × 3 tensors, got the shape {np.shape(born)}"
        )
    return values
