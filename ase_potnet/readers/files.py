"""Reading files: text compressed or not, with a progress bar; JSON arrays element by element; .npz archives."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

Progress = bool | Literal["always"]  # True: a bar if stderr is a terminal
T = TypeVar("T")

PACKED = (".gz", ".bz2", ".xz", ".zip")  # suffixes of compressed files
_CHUNK = 1 << 20  # characters read from a JSON file at once


def bar_wanted(progress: Progress) -> bool:
    """Whether to draw a progress bar: asked for always, or asked for and stderr is a terminal."""
    wanted = progress == "always" or (bool(progress) and sys.stderr.isatty())
    if wanted:
        try:
            import rich  # noqa: F401
        except ImportError:
            return False
    return wanted


def track(items: Iterable[T], what: str, *, total: int | None, progress: Progress) -> Iterator[T]:
    """The items, with a progress bar where one is wanted."""
    if not bar_wanted(progress):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, what, total=total, console=Console(file=sys.stderr), transient=True)


@contextlib.contextmanager
def open_text(path: Path, *, progress: Progress = False, errors: str = "strict") -> Iterator[TextIO]:
    """The text (UTF-8) of a file: plain, gzip, bzip2, xz, or the one file in a zip archive, by content.

    errors: "replace" where other encodings matter in names and comments alone

    Raises:
        ValueError: the file is damaged or truncated, or not text, or the archive holds several files.
    """
    with contextlib.ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(path.open("rb"))
        magic = raw.read(6)
        raw.seek(0)
        if bar_wanted(progress):
            from rich.console import Console
            from rich.progress import wrap_file

            console = Console(file=sys.stderr)
            bar = wrap_file(raw, path.stat().st_size, description=path.name, console=console, transient=True)
            raw = stack.enter_context(bar)
        try:
            stream = stack.enter_context(_decompressed(raw, magic, path))
            yield stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8-sig", errors=errors))
        except (
            EOFError,
            lzma.LZMAError,
            zlib.error,
            gzip.BadGzipFile,
            zipfile.BadZipFile,
            UnicodeDecodeError,
        ) as error:
            raise ValueError(f"{path}: damaged, truncated or not text ({error})") from error


def _decompressed(raw: IO[bytes], magic: bytes, path: Path) -> IO[bytes]:
    """The bytes of the file behind its compression."""
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    if magic.startswith(b"PK\x03\x04"):
        archive = zipfile.ZipFile(raw)
        members = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(members) != 1:
            raise ValueError(f"{path}: an archive of {len(members)} files; unpack it and name the one to read")
        return archive.open(members[0])
    return raw


def printable(name: str) -> str:
    """A file's name that is no UTF-8, as text that can be kept."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def plain_suffix(path: Path) -> str:
    """The suffix in lower case, without that of a compression: '.json' for a.json.zip."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem(path: Path) -> str:
    """The name without compression and format: 'a' for a.json.zip."""
    name = path.name
    for suffix in reversed(path.suffixes):
        name = name.removesuffix(suffix)
        if suffix.lower() not in PACKED:
            break
    return name


def iter_json(stream: TextIO, name: str = "JSON") -> Iterator[Any]:
    """The elements of a JSON array, of the list under 'data' of a JSON object, or the values of JSON lines.

    Only one element of an array (and a little text) is in memory at a time.

    Raises:
        ValueError: at the first element that is not JSON; what follows cannot be read.
    """
    decoder = json.JSONDecoder()
    text, at, read, chunk, ended = stream.read(_CHUNK).lstrip(), 0, 0, _CHUNK, False
    array = text.startswith("[")
    at = int(array)
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at < len(text) and array and text[at] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
            complete = ended or end < len(text)  # a number at the end may go on
        except json.JSONDecodeError as error:
            complete = False
            if ended and at == len(text) and not array:
                return
            if ended:
                raise ValueError(f"{name}: truncated or not JSON, at character {read + error.pos}") from error
        if complete:
            at = end
            chunk = _CHUNK
            if not array and isinstance(value, dict) and isinstance(value.get("data"), list):
                yield from value["data"]
            else:
                yield value
        else:
            more = stream.read(chunk)
            ended, chunk = not more, 2 * chunk
            text, read, at = text[at:] + more, read + at, 0


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file; reading them all checks the archive's checksums.

    Raises:
        ValueError: the file is damaged or truncated, holds Python objects, or lacks one of the keys.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: damaged, truncated or no .npz file ({error})") from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise ValueError(f"{path}: no array {', '.join(missing)}; there are {', '.join(arrays) or 'none'}")
    return arrays
