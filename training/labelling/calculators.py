"""Calculators by name: `module:factory` with keyword arguments, and what is written down about them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase_potnet.user_modules import import_from_here

_NAME = re.compile(r"[A-Za-z_]\w*")
EXAMPLES = 'ase.calculators.emt:EMT, or mymodule:make,size=2,name=a, or mymodule:make,{"size": 2}'


@dataclass(frozen=True)
class CalculatorSpec:
    """What makes a calculator.

    Attributes:
        module: importable, or a Python file's name without .py in the current folder
        factory: name in that module, dots allowed; called with the arguments it returns an ASE calculator
        arguments: keyword arguments
    """

    module: str
    factory: str
    arguments: dict[str, Any]


def parse_spec(text: str) -> CalculatorSpec:
    """The parts of `module:factory`, `module:factory,key=value,...` or `module:factory,{json}`.

    A value is JSON where it can be read as such (numbers, true, null, lists without commas), else text.

    Raises:
        ValueError: the text is of another form.
    """
    head, _, tail = text.strip().partition(",")
    module, colon, factory = head.strip().partition(":")
    names = [*module.split("."), *factory.split(".")]
    if not colon or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError(f"calculator: wanted module:factory (such as {EXAMPLES}), got {text!r}")
    tail = tail.strip()
    if not tail.startswith("{"):
        return CalculatorSpec(module, factory, dict(_argument(part, text) for part in tail.split(",") if part.strip()))
    try:
        arguments = json.loads(tail)
    except json.JSONDecodeError as error:
        raise ValueError(f"calculator: the arguments {tail!r} are not JSON: {error}") from error
    return CalculatorSpec(module, factory, arguments)


def _argument(part: str, text: str) -> tuple[str, Any]:
    key, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals or not _NAME.fullmatch(key):
        raise ValueError(f"calculator: wanted key=value, got {part.strip()!r} in {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def make_calculator(spec: CalculatorSpec) -> Any:
    """Import the module, from the current folder too, and call the factory.

    Raises:
        ValueError: it cannot be imported or called, or what it returns is no calculator of energies and forces.
    """
    try:
        factory: Any = import_from_here(spec.module)
    except Exception as error:
        raise ValueError(f"calculator: cannot import {spec.module}: {type(error).__name__}: {error}") from error
    for name in spec.factory.split("."):
        if not hasattr(factory, name):
            raise ValueError(f"calculator: {spec.module} has no {spec.factory}")
        factory = getattr(factory, name)
    call = f"{spec.module}:{spec.factory}({', '.join(f'{key}={value!r}' for key, value in spec.arguments.items())})"
    try:
        calculator = factory(**spec.arguments)
    except Exception as error:
        raise ValueError(f"calculator: {call} failed: {type(error).__name__}: {error}") from error
    if inspect.isclass(calculator) or not callable(getattr(calculator, "get_property", None)):
        raise ValueError(f"calculator: {call} gave {calculator!r}, which is no ASE calculator (it has no get_property)")
    missing = {"energy", "forces"}.difference(getattr(calculator, "implemented_properties", ("energy", "forces")))
    if missing:
        raise ValueError(f"calculator: {call} does not implement {' and '.join(sorted(missing))}")
    return calculator


def describe(spec: CalculatorSpec, calculator: Any) -> dict[str, Any]:
    """What is written down about a calculator, JSON-able: names, arguments, versions, checksums of its files."""
    kind = type(calculator)
    modules = dict.fromkeys((spec.module, kind.__module__))
    files = {str(value): _sha256(Path(value)) for value in spec.arguments.values() if _is_file(value)}
    for module in modules:  # a file of the user's has no version
        source = getattr(sys.modules.get(module), "__file__", None)
        if source and _package(module) is None:
            files[Path(source).name] = _sha256(Path(source))
    packages = filter(None, map(_package, modules))
    return {
        "factory": f"{spec.module}:{spec.factory}",
        "arguments": spec.arguments,
        "parameters": _as_json(getattr(calculator, "parameters", None) or {}),
        "class": kind.__qualname__,
        "module": kind.__module__,
        "packages": dict(sorted(packages)),
        "files_sha256": files,
        "properties": sorted(getattr(calculator, "implemented_properties", ())),
    }


def _as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those that JSON can hold."""
    found = {}
    for key, value in parameters.items():
        with contextlib.suppress(TypeError, ValueError):
            found[str(key)] = json.loads(json.dumps(value, allow_nan=False))
    return found


def _package(module: str) -> tuple[str, str] | None:
    """Name and version of the distribution that a module belongs to."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    top = module.partition(".")[0]
    try:
        return top, version(top)  # most are named like what they install; the list of all takes half a second
    except PackageNotFoundError:
        names = packages_distributions().get(top)
    return (names[0], version(names[0])) if names else None


def _is_file(value: Any) -> bool:
    try:
        return isinstance(value, str) and Path(value).is_file()
    except OSError:  # too long for a name
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
