"""Where crystals come from: files of every kind, folders, patterns, or structures in memory."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from glob import iglob
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_potnet.readers.ase_db import ase_db_entries, is_ase_json
from ase_potnet.readers.cells_npz import cells_npz_entries
from ase_potnet.readers.cif_csv import cif_column, cif_csv_entries, first_row
from ase_potnet.readers.entry import ID_KEYS, Entry, reason_of, refuse
from ase_potnet.readers.files import iter_json, open_text, plain_suffix, printable, stem
from ase_potnet.readers.jarvis import jarvis_atoms
from ase_potnet.readers.mp_summary import pymatgen_atoms
from ase_potnet.readers.structure_files import SUFFIXES, is_structure_file, structure_entries, without_inputs
from ase_potnet.readers.structures import check

WRITTEN_BY = "potnet screen"  # mark of exported structures
COLLECTIONS = (".json", ".jsonl", ".csv", ".db", ".aselmdb", ".lmdb", ".npz")
_JSON_IDS = (*ID_KEYS, "entry_id")


@dataclass(frozen=True)
class Candidate:
    """A crystal to screen, or the reason why there is none.

    key: of id and content; the same entry has the same key in every run
    id: its name in the source: material_id or the like, else path without suffix, with the number of the frame
    source: file that it comes from, or "memory"
    atoms: None where it cannot be read
    message: why it cannot be read
    digest: of the content alone: equal for equal structures
    """

    key: str
    id: str
    source: str
    atoms: Atoms | None
    message: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Files:
    """Files, folders and patterns, without the files that are not meant, such as results written into such a folder."""

    paths: tuple[str | Path, ...]
    without: tuple[Path, ...]


def candidates(sources: Any) -> Iterator[Candidate]:
    """The crystals of one source or several, one at a time; what cannot be read is a candidate without atoms.

    Args:
        sources: path of a file or folder, glob pattern, ASE Atoms, pymatgen Structure, (id, structure), or an
            iterable of these.

    Raises:
        ValueError: a path that does not exist, a pattern without a match, at once; another type when it is due.
    """
    seen = Counter[str]()
    for source, entry in _entries(sources):
        yield _candidate(source, entry, seen)


def count(sources: Any) -> int | None:
    """How many candidates there will be, without building structures; None for iterators, which can run only once."""
    if isinstance(sources, Iterator):
        return None
    return sum(1 for _ in _entries(sources))


def _entries(sources: Any) -> Iterator[tuple[str, Entry]]:
    if isinstance(sources, (str, Path)):
        yield from _path_entries([sources])
    elif isinstance(sources, Files):
        yield from _path_entries(sources.paths, sources.without)
    elif _is_one(sources):
        yield _memory_entry(0, sources)
    elif isinstance(sources, (list, tuple)) and all(isinstance(item, (str, Path)) for item in sources):
        yield from _path_entries(sources)
    else:
        for number, item in enumerate(sources):
            if isinstance(item, (str, Path)):
                yield from _path_entries([item])
            else:
                yield _memory_entry(number, item)


def _candidate(source: str, entry: Entry, seen: Counter[str]) -> Candidate:
    """The entry, built and checked."""
    source, entry = printable(source), replace(entry, id=printable(entry.id))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third-party parsers: of no use among thousands of entries
            atoms = entry.build()
            check(atoms)
    except Exception as error:  # parsers raise anything
        message = reason_of(error)
        return Candidate(_key(entry.id, f"unreadable: {message}", seen), entry.id, source, None, message)
    digest = content_digest(atoms)
    return Candidate(_key(entry.id, digest, seen), entry.id, source, bare(atoms), digest=digest)


def bare(atoms: Atoms) -> Atoms:
    """Numbers, positions, cell and periodicity alone."""
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def content_digest(atoms: Atoms) -> str:
    """SHA-256 of numbers, positions, cell and periodicity, to the last bit."""
    digest = hashlib.sha256(np.asarray(atoms.numbers, dtype="<i8").tobytes())
    for values in (atoms.positions, atoms.cell.array):
        digest.update((np.asarray(values, dtype="<f8") + 0.0).tobytes())  # -0.0 is 0.0
    digest.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    return digest.hexdigest()


def _key(name: str, content: str, seen: Counter[str]) -> str:
    """Key of an entry; an entry that comes again with equal content gets another."""
    key = hashlib.sha256(f"{name}\0{content}".encode()).hexdigest()[:32]
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}-{seen[key]}"


def _is_one(item: Any) -> bool:
    """Whether it is a structure, alone or with an id."""
    _, structure = _named(item)
    return isinstance(structure, Atoms) or hasattr(structure, "cart_coords")


def _named(item: Any) -> tuple[str | None, Any]:
    """Id, if there is one, and structure."""
    return item if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) else (None, item)


def _memory_entry(number: int, item: Any) -> tuple[str, Entry]:
    name, item = _named(item)
    if isinstance(item, Atoms):
        name = name or next((str(item.info[key]) for key in ID_KEYS if key in item.info), None)
        return "memory", Entry(name or f"structure-{number}", {}, lambda: item)
    if hasattr(item, "cart_coords"):
        build = (lambda: pymatgen_atoms(item.as_dict())) if hasattr(item, "lattice") else item.to_ase_atoms
        return "memory", Entry(name or f"structure-{number}", {}, build)
    raise ValueError(
        f"structures[{number}]: wanted a path, ASE Atoms, a pymatgen Structure or Molecule, got {type(item).__name__}"
    )


def _path_entries(paths: Iterable[str | Path], without: Iterable[Path] = ()) -> Iterator[tuple[str, Entry]]:
    left_out = {path.resolve() for path in without}
    files: dict[Path, str] = {}  # each file once, whatever names it; its id
    for path in paths:
        for file, name in _find(path):
            if file.resolve() not in left_out or file == Path(path):
                files.setdefault(file.resolve(), name)
    for file, name in files.items():
        entries = file_entries(file, name)
        number = 0
        try:
            with closing(entries):
                for entry in entries:
                    number += 1
                    yield str(file), entry
        except Exception as error:  # damaged from here on
            message = reason_of(error)
            yield str(file), Entry(name if number == 0 else f"{name}-rest", {}, partial(refuse, message))
            continue
        if number == 0:
            yield str(file), Entry(name, {}, partial(refuse, "no structure in the file"))


def _find(path: str | Path) -> list[tuple[Path, str]]:
    """Files that a path or pattern names, with their ids."""
    place = Path(path)
    if place.is_dir():
        inside = files_in_folder(place)
        if not inside:
            raise ValueError(f"sources: no structure files in the folder {place}")
        return [(file, _name(file.relative_to(place))) for file in inside]
    if place.is_file():
        return [(place, _name(Path(place.name)))]
    if re.search(r"[*?\[]", str(path)):
        found = sorted(Path(name) for name in iglob(str(path), recursive=True))  # noqa: PTH207  (absolute patterns)
        files = [file for file in found if file.is_file()]
        if files:
            return [(file, _name(file)) for file in without_inputs(files)]
    raise ValueError(f"sources: no file, folder or files like {path}")


def files_in_folder(folder: Path) -> list[Path]:
    """The structure files in a folder and those inside it, by their names."""
    inside = sorted(file for file in folder.rglob("*") if file.is_file() and _is_source(file.relative_to(folder)))
    return without_inputs([file for file in inside if not _is_result(file)])


def _is_source(path: Path) -> bool:
    """Whether a file in a folder is one of structures, by its name."""
    if any(part.startswith(".") or part.endswith(".shards") for part in path.parts):
        return False
    return is_structure_file(path) or plain_suffix(path) in COLLECTIONS or path.suffix.lower() == ".traj"


def _is_result(file: Path) -> bool:
    """Whether a file in a folder is not meant: results of a screening and their exports, a table without CIF text."""
    if plain_suffix(file) == ".db":
        with file.open("rb") as stream:
            return b"CREATE TRIGGER results_stay" in stream.read(16_384)
    if file.suffix in (".extxyz", ".json"):
        with file.open("rb") as stream:
            return WRITTEN_BY.encode() in stream.read(4096)
    if plain_suffix(file) == ".csv":
        try:
            return cif_column(first_row(file)) is None
        except (ValueError, OSError):  # damaged: a candidate that cannot be read
            return False
    return False


def _name(path: Path) -> str:
    """Path without compression and format; POSCAR takes the name of its folder."""
    if path.name.split(".")[0].upper() in ("POSCAR", "CONTCAR") and path.parent.name:
        return path.parent.as_posix()
    known = plain_suffix(path) in (*SUFFIXES, *COLLECTIONS)
    return path.with_name(stem(path) if known else path.name).as_posix()


def file_entries(file: Path, name: str) -> Generator[Entry, None, None]:
    """The entries of one file. Raises ValueError, OSError where it cannot be read."""
    suffix = plain_suffix(file)
    with file.open("rb") as stream:
        sqlite = stream.read(15) == b"SQLite format 3"
    if sqlite or suffix in (".aselmdb", ".lmdb"):
        yield from ase_db_entries(file, False, None, None)
    elif suffix == ".npz":
        yield from cells_npz_entries(file, False)
    elif suffix == ".csv":
        row = first_row(file)
        if (cif := cif_column(row)) is None:
            raise ValueError(f"no column with CIF text; the columns are {', '.join(row) or 'none'}")
        yield from cif_csv_entries(file, False, cif, None)
    elif suffix in (".json", ".jsonl"):
        yield from _json_entries(file, name)
    else:
        yield from _numbered(structure_entries(file), stem(file), name)


def _numbered(frames: Iterator[Entry], stem: str, name: str) -> Iterator[Entry]:
    """Frames without an id of their own, so far "stem-number": the file's id, with a number if there are several."""
    plain = re.compile(rf"{re.escape(stem)}-\d+")
    previous: Entry | None = None
    number = 0
    for frame in frames:
        if previous is not None:
            yield _renamed(previous, plain, f"{name}-{number - 1}")
        previous, number = frame, number + 1
    if previous is not None:
        yield _renamed(previous, plain, name if number == 1 else f"{name}-{number - 1}")


def _renamed(entry: Entry, plain: re.Pattern[str], name: str) -> Entry:
    return Entry(name, entry.values, entry.build) if plain.fullmatch(entry.id) else entry


def _json_entries(file: Path, name: str) -> Iterator[Entry]:
    if is_ase_json(file):
        yield from ase_db_entries(file, False, None, None)
        return
    with open_text(file) as stream:
        several = stream.read(200).lstrip().startswith("[") or plain_suffix(file) == ".jsonl"
    with open_text(file) as stream:
        for number, item in enumerate(iter_json(stream, file.name)):
            fields = item if isinstance(item, dict) else {}
            found = next((str(fields[key]) for key in _JSON_IDS if fields.get(key)), None)
            yield Entry(found or (f"{name}-{number}" if several else name), {}, partial(_from_json, item))


def _from_json(item: Any) -> Atoms:
    """A structure as pymatgen or JARVIS writes it, alone or in an entry."""
    fields = item if isinstance(item, dict) else {}
    if isinstance(fields.get("atoms"), dict):
        return jarvis_atoms(fields["atoms"])
    if "lattice_mat" in fields:
        return jarvis_atoms(fields)
    return pymatgen_atoms(fields.get("structure", fields))
