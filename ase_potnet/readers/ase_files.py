"""Files that ASE alone reads: trajectories (.traj), outputs of VASP (vasprun.xml, OUTCAR) and of other codes."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Generator
from functools import partial
from pathlib import Path

from ase import Atoms

from ase_potnet.readers.entry import ID_KEYS, Entry, reason_of, refuse
from ase_potnet.readers.files import Progress, stem, track

_DATABASES = ("json", "db")  # see `ase_db`


def ase_format(path: Path) -> str | None:
    """ASE's name of the format of a file, by name, content or extension; None where it knows none that it reads."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        name = filetype(str(path.absolute()), guess=False)
        known = name in ioformats and name not in _DATABASES and ioformats[name].can_read
    except (UnknownFileTypeError, OSError, EOFError, lzma.LZMAError, zlib.error):
        return None
    return name if known else None


def ase_file_entries(
    path: Path, progress: Progress = False, id_key: str | None = None, group_key: str | None = None
) -> Generator[Entry, None, None]:
    """The frames of a file, with the results of a calculation in `atoms.calc`.

    Raises:
        ValueError: ASE does not know the format, or cannot read the first frame.
    """
    from ase.io import iread

    if not path.is_file():
        raise ValueError(f"path: no file {path}")
    form = ase_format(path)
    if form is None:
        raise ValueError(f"path: {path} has no format that ASE knows")
    number = 0
    try:
        frames = iread(str(path), index=":", format=form, do_not_split_by_at_sign=True)
        for number, atoms in enumerate(track(frames, path.name, total=None, progress=progress), start=1):
            fields = dict(atoms.info)
            group = fields.pop(group_key or "group", None)
            key = id_key or next((key for key in ID_KEYS if key in fields), None)
            name = str(fields.pop(key)) if key in fields else f"{stem(path)}-{number - 1}"
            yield Entry(name, fields, partial(_built, atoms), None if group is None else str(group))
    except Exception as error:  # parsers raise anything
        if number == 0:
            raise ValueError(f"path: ASE cannot read {path} as {form}: {reason_of(error)}") from error
        yield Entry(f"{stem(path)}-{number}", {}, partial(refuse, f"the file cannot be read further: {error}"))


def _built(atoms: Atoms) -> Atoms:
    return atoms
