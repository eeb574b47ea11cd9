"""A model folder: weights.safetensors, config.json with their SHA-256, and CARD.md.

Nothing in it is code or pickle, and nothing is ever downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ase_potnet.pretrained.packaged import CONFIG_FILE, find_model

FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "CARD.md"
_FILES = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE}
TASKS = ("property", "energy")
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Target:
    """One quantity that a model predicts.

    name: as it is asked for, such as "formation_energy_per_atom"
    unit: of the predicted value, such as "eV/atom"
    field: name of the quantity in the training data; None: the same
    minimum: lowest possible value, such as 0 for a band gap, to which predictions below are raised; None: no limit
    """

    name: str
    unit: str = ""
    field: str | None = None
    minimum: float | None = None

    @property
    def source(self) -> str:
        """Name of the quantity in the training data."""
        return self.field or self.name


@dataclass(frozen=True)
class ModelInfo:
    """What config.json says about a model.

    folder: where it lies
    model: name for ``build_model``
    config: the model's configuration
    task: "property" (intensive values, one a target) or "energy" (energy, forces and stress)
    targets: what it predicts, in the order of the outputs
    metadata: of the training: data, errors, time; whatever ``save_model`` was given
    sha256: of the weights file
    version: of the package that wrote the folder
    """

    folder: Path
    model: str
    config: dict[str, Any]
    task: str
    targets: tuple[Target, ...]
    sha256: str
    version: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def card(self) -> str:
        """The text of CARD.md."""
        file = self.folder / CARD_FILE
        return file.read_text(encoding="utf-8") if file.is_file() else ""


def save_model(
    model: nn.Module,
    folder: str | Path,
    *,
    targets: str | Iterable[Target | str] = (),
    task: str = "property",
    metadata: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Write a model folder, all of it or nothing: an existing model folder of that name is replaced at the end.

    Args:
        model: of a class that ``build_model`` knows, for the task.
        folder: where to; its name is the model's name. What it holds besides a model is not touched, but an error.
        targets: what a property model predicts, as many as its outputs, in their order.
        task: "property" or "energy".
        metadata: of the training; must be JSON.
        card: text of CARD.md; None writes one from the metadata.

    Raises:
        ValueError: naming the argument; a folder that exists and is no model folder is not touched.
    """
    from ase_potnet import __version__
    from ase_potnet.models import model_name

    if task not in TASKS:
        raise ValueError(f"task: wanted one of {', '.join(TASKS)}, got {task!r}")
    folder = Path(folder).expanduser()
    folder = folder.resolve() if folder.is_symlink() else folder
    check_model_folder(folder)
    name, names = model_name(model), [targets] if isinstance(targets, str) else list(targets)
    _check_outputs(model, task, len(names))
    weights = _to_bytes(model)
    config = {
        "format_version": FORMAT_VERSION,
        "model": name,
        "config": dataclasses.asdict(model.config),  # type: ignore[call-overload]
        "task": task,
        "targets": [dataclasses.asdict(Target(t) if isinstance(t, str) else t) for t in names],
        "metadata": dict(metadata or {}),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "package_version": __version__,
    }
    try:
        text = json.dumps(config, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: wanted JSON without NaN, got something else ({error})") from error
    _write_folder(folder, {WEIGHTS_FILE: weights, CONFIG_FILE: text.encode(), CARD_FILE: _card(folder, config, card)})
    return folder


def _check_outputs(model: nn.Module, task: str, n_targets: int) -> None:
    """Raises ValueError where a model does not do the task, or has another number of targets."""
    from ase_potnet.models import predicts_properties

    if predicts_properties(model) != (task == "property"):
        raise ValueError(f"task: {type(model).__name__} is no model for {task!r}")
    if task == "property" and n_targets != model.config.n_targets:  # type: ignore[union-attr]
        raise ValueError(f"targets: the model predicts {model.config.n_targets}, got {n_targets}")  # type: ignore[union-attr]


def check_model_folder(folder: Path) -> None:
    """Raises ValueError where a model cannot be written: a folder with files of another kind. Hidden files may stay."""
    if not folder.exists():
        return
    if folder.resolve() == Path.cwd():
        raise ValueError(f"folder: {folder} is the current folder, which cannot be replaced; give another name")
    strange = sorted(path.name for path in folder.iterdir() if path.name not in _FILES and not _is_hidden_file(path))
    if strange:
        raise ValueError(f"folder: {folder} holds more than a model ({', '.join(strange[:3])}, ...); give another name")


def _is_hidden_file(path: Path) -> bool:
    """Such as .DS_Store, which a file manager leaves behind."""
    return path.name.startswith(".") and path.is_file()


def model_info(name_or_path: str | Path) -> ModelInfo:
    """What is known about a packaged model or a model folder. The weights are not read.

    Raises:
        ValueError: no such model, or a config.json that is damaged or of a newer format.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(f"model: wanted a packaged name or a model folder, got {type(name_or_path).__name__}")
    folder = find_model(name_or_path)
    file = folder / CONFIG_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format_version"] > FORMAT_VERSION:
            raise ValueError(
                f"model: {folder} has format {data['format_version']}, this version of ase_potnet reads up to "
                f"{FORMAT_VERSION}: upgrade ase_potnet"
            )
        targets = tuple(Target(**target) for target in data["targets"])
        return ModelInfo(
            folder=folder,
            model=data["model"],
            config=_completed(data["model"], data["config"]),
            task=data["task"],
            targets=targets,
            metadata=dict(data["metadata"]),
            sha256=data["sha256"],
            version=data["package_version"],
        )
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"model: {file} is damaged ({type(error).__name__}: {error})") from error


def _completed(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the value that older folders, which do not name them, stand for."""
    config = dict(config)
    if model.startswith("equivariant-"):
        config = {"absolute": True, "cutoff_per_radius": 0.0} | config
    if "members" in config:
        config["members"] = [
            dict(member) | {"options": _completed(member["model"], member["options"])} for member in config["members"]
        ]
    return config


@torch.inference_mode(mode=False)
def load_model(
    name_or_path: str | Path = "default",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
) -> nn.Module:
    """A trained model, ready to predict (in evaluation mode).

    Args:
        name_or_path: a packaged model (``list_models()``) or a folder that ``save_model`` wrote.
        device: where its weights live; "auto": a GPU if there is one.
        dtype: of its weights, such as "float32" or torch.float32; None keeps that of the file.

    Raises:
        ValueError: no such model (with the nearest name), a damaged or altered file, weights that do not fit.
    """
    from ase_potnet.models import build_model

    wanted, place = None if dtype is None else read_dtype(dtype), pick_device(device)
    info = model_info(name_or_path)
    weights = _read_weights(info)
    try:
        with torch.random.fork_rng(devices=[]):  # fresh weights, soon replaced: no random numbers of the caller
            model = build_model(info.model, info.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: {info.folder / CONFIG_FILE} describes no model of this version: {error}") from error
    try:
        # the module takes the dtype of the file: assign, since copying would round float64 weights to float32
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"model: the weights in {info.folder} do not fit {info.model}: {error}") from error
    return model.to(device=place, dtype=wanted).eval().requires_grad_(False)


def read_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """float64 or float32, by name or as torch's. Raises ValueError for another."""
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype: wanted 'float64' or 'float32', got {dtype!r}")
    return found


def pick_device(device: torch.device | str) -> torch.device:
    """The device; "auto" is a GPU if there is one. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device: wanted 'auto' or a device of torch such as 'cpu' or 'cuda', got {device!r}"
        ) from error
    if place.type not in ("cpu", "cuda"):  # sums want float64, and kernels that other devices do not have
        raise ValueError(f"device: the models run on 'cpu' and 'cuda', got {str(device)!r}")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: torch finds {torch.cuda.device_count()} CUDA devices, got {str(device)!r}")
    return place


def _read_weights(info: ModelInfo) -> dict[str, Tensor]:
    """The weights, after their hash has been compared."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = info.folder / WEIGHTS_FILE
    if not file.is_file():
        raise ValueError(f"model: {info.folder} has no {WEIGHTS_FILE}")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != info.sha256:
        raise ValueError(
            f"model: {file} is damaged or was altered: its SHA-256 is {found[:12]}..., config.json says "
            f"{info.sha256[:12]}...; install or train the model again"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"model: {file} is no safetensors file ({error})") from error


def _to_bytes(model: nn.Module) -> bytes:
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"model: the weights {name} are not finite")
    return save(state, metadata={"format": "pt"})


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files to a temporary folder beside it, then rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        temporary.chmod(0o755)
        for name, content in files.items():
            with (temporary / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        if folder.exists():
            for path in filter(_is_hidden_file, folder.iterdir()):
                shutil.copy2(path, temporary)
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _card(folder: Path, config: Mapping[str, Any], card: str | None) -> bytes:
    """The given text, or a card made of the metadata."""
    if card is not None:
        return card.encode()
    targets = ", ".join(f"{target['name']} ({target['unit'] or 'no unit'})" for target in config["targets"])
    lines = [f"# {folder.name}", "", f"Network: `{config['model']}`. Predicts: {targets or 'not stated'}.", ""]
    for key, value in config["metadata"].items():
        lines.append(f"- {key}: {value if isinstance(value, (str, int, float)) else json.dumps(value)}")
    return ("\n".join(lines) + "\n").encode()
