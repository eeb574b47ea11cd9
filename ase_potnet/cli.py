"""The command `potnet`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="potnet",
    help="Networks on complete interatomic potentials of crystals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
_EXTRAS = {"lightning": "train", "pydantic": "train", "yaml": "train", "matplotlib": "train", "pymatgen": "pymatgen"}
_EXTRAS |= {"phonopy": "phonons", "seekpath": "phonons", "spglib": "phonons", "symfc": "phonons"}
_EXTRAS |= {"parsl": "screen", "pyarrow": "screen"}


def main(args: list[str] | None = None) -> None:
    """Run the command; what a user can mend is one line on stderr, without a traceback."""
    try:
        app(args=args)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _fail(f"{error.name} is not installed: pip install 'ase-potnet[{extra}]'")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")


def _fail(message: str) -> NoReturn:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    raise SystemExit(2)


@contextlib.contextmanager
def _goes_on() -> Iterator[None]:
    """Ctrl-C inside says that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        raise SystemExit(130) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"potnet {version('ase-potnet')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="YAML file, or name of a packaged recipe (see --list)")] = "",
    set_: Annotated[list[str], typer.Option("--set", "-s", help="key=value, such as data.path=jdft_3d.json")] = [],  # noqa: B006
    restart: Annotated[bool, typer.Option(help="start over instead of going on")] = False,
    list_: Annotated[bool, typer.Option("--list", help="list the packaged recipes")] = False,
) -> None:
    """Train a model; run the same command again to go on after an interruption."""
    from ase_potnet.training.recipe import load_recipe, packaged_recipes

    if not recipe and set_:
        raise ValueError("RECIPE: wanted a YAML file or the name of a packaged recipe before --set")
    if list_ or not recipe:
        typer.echo("\n".join(packaged_recipes()))
        return
    checked = load_recipe(recipe, _overrides(set_))
    from ase_potnet.training.run import train as run

    run(checked, restart=restart)


def _overrides(settings: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set: wanted key=value, got {setting!r}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set: the value of {key} is no YAML: {value!r}") from error
    return values


@app.command()
def evaluate(
    model: Annotated[str, typer.Option("--model", "-m", help="packaged model or model folder")],
    data: Annotated[list[str], typer.Option("--data", "-d", help="file, folder or pattern; may be repeated")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="folder for CSV, JSON and picture")
    ] = None,
    kind: Annotated[str, typer.Option(help="of the data, if it is not recognised")] = "auto",
    target: Annotated[list[str], typer.Option(help="name=field: what a target is called in the data")] = [],  # noqa: B006
    split: Annotated[Path | None, typer.Option(help="JSON file with ids of train, val and test")] = None,
    part: Annotated[str | None, typer.Option(help="of the split: train, val or test (the default)")] = None,
    limit: Annotated[int | None, typer.Option(help="structures at most")] = None,
    fit_shifts: Annotated[bool, typer.Option(help="energies: first fit a shift per element to the data")] = False,
    device: Device = "auto",
) -> None:
    """Errors of a model on labelled data: properties, or energies, forces and stress."""
    from ase_potnet.training.assessment import assess
    from ase_potnet.training.tables import assessment_table

    fields = dict(_pair("--target", item) for item in target)
    result = assess(
        model, data if len(data) > 1 else data[0], output=output, fields=fields, kind=kind, split=split, part=part,
        limit=limit, fit_shifts=fit_shifts, device=device,
    )  # fmt: skip
    typer.echo(assessment_table(result))


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{option}: wanted name=field, got {text!r}")
    return key, value


@app.command()
def label(
    source: Annotated[list[str], typer.Argument(metavar="IN... OUT", help="structures to label; folder to write to")],
    calculator: Annotated[str, typer.Option("--calculator", "-c", help="module:factory[,key=value,...] or ,{json}")],
    perturb: Annotated[
        str, typer.Option("--perturb", "-p", help="none, default, phonon, displaced, or a YAML file")
    ] = "none",
    frames: Annotated[int | None, typer.Option(help="frames a structure, in place of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    elements: Annotated[str | None, typer.Option(help="only structures of these, such as Al,Cu,O")] = None,
    structures: Annotated[int | None, typer.Option(help="structures at most")] = None,
    processes: Annotated[int, typer.Option("--processes", "-n", help="each with a calculator of its own")] = 1,
    threads: Annotated[int, typer.Option(help="of each process")] = 1,
    time_limit: Annotated[str | None, typer.Option(help="stop after this time, such as 90s, 30m, 2h, 1d")] = None,
    limit: Annotated[str | None, typer.Option(hidden=True, help="former name of --time-limit")] = None,
    export: Annotated[
        Path | None, typer.Option(dir_okay=False, help="extxyz file of all frames, once finished")
    ] = None,
) -> None:
    """Label structures with energy, forces and stress of any ASE calculator; the same command again goes on."""
    from ase_potnet.training.labelling import export_extxyz
    from ase_potnet.training.labelling import label as run

    if len(source) < 2:
        raise ValueError("IN, OUT: wanted structures to label and a folder to write to")
    *inputs, out = source
    if export is not None:
        export.parent.mkdir(parents=True, exist_ok=True)  # now rather than after hours
    chosen = None if elements is None else elements.replace(",", " ").split()
    with _goes_on():
        done = run(
            inputs if len(inputs) > 1 else inputs[0], out, calculator, recipe=perturb, frames=frames, seed=seed,
            elements=chosen, structures=structures, processes=processes, threads=threads,
            limit=time_limit or limit,
        )  # fmt: skip
    typer.echo(done)
    if export is not None and done.complete:
        typer.echo(f"written: {export_extxyz(out, export)}")
    if done.complete and not done.labelled:
        raise typer.Exit(1)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="structure files, or folders of them")],
    property_: Annotated[
        str | None,
        typer.Option("--property", "-p", help="default: formation_energy_per_atom, or the only one of the model"),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="packaged model or model folder")] = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="table, csv or json")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="file; default: standard output")
    ] = None,
    device: Device = "auto",
) -> None:
    """Predict a property of structures."""
    from ase_potnet.structure_files import check_format, predict_files, write_rows

    check_format(format_)
    if output is not None:
        from ase_potnet.file_safety import replacing, require_writable

        if not output.exists() or output.is_file():  # no pipe or device
            require_writable(output.parent)
    rows, name, unit, failures = predict_files(files, property_, model, device=device)
    text = write_rows(rows, name, unit, format_)
    if output is None:
        typer.echo(text, nl=False)
    else:
        if output.exists() and not output.is_file():  # a pipe, a device
            output.write_text(text, encoding="utf-8")
        else:
            with replacing(output.resolve()) as file:
                file.write(text.encode())
    for failure in failures:
        typer.echo(f"error: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


@app.command()
def relax(
    file: Annotated[Path, typer.Argument(help="structure file of a crystal")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="default: beside it, NAME_relaxed")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="packaged model or model folder")] = "default",
    cell: Annotated[bool, typer.Option(help="relax the cell, too")] = True,
    fmax: Annotated[
        float, typer.Option(help="largest force to leave, eV/Å; stress counts as force on the cell")
    ] = 0.01,
    max_steps: Annotated[int, typer.Option(help="of the optimiser")] = 500,
    device: Device = "auto",
) -> None:
    """Relax a crystal, keeping its symmetry. For many crystals: potnet screen --do relax."""
    from ase_potnet.structure_files import relax_file

    text, converged = relax_file(
        file, output, model=model, cell=cell, fmax=fmax, max_steps=max_steps, device=device,
    )  # fmt: skip
    typer.echo(text, nl=False)
    if not converged:
        raise typer.Exit(1)


@app.command()
def phonon(
    file: Annotated[Path, typer.Argument(help="structure file of a crystal")],
    model: Annotated[str, typer.Option("--model", "-m", help="packaged model or model folder")] = "default",
    supercell: Annotated[str, typer.Option(help="auto, least height in Å such as 12.0, or 3 or 9 integers")] = "auto",
    mesh: Annotated[str, typer.Option(help="of wave vectors: 3 integers, or a length in Å")] = "100",
    nac: Annotated[Path | None, typer.Option(help="BORN file of phonopy")] = None,
    relax: Annotated[bool, typer.Option(help="relax atoms and cell first")] = True,
    method: Annotated[str, typer.Option(help="finite displacements, or analytic second derivatives")] = "finite",
    plot: Annotated[bool, typer.Option(help="draw bands and DOS")] = True,
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="folder to write to")] = Path(),
    device: Device = "auto",
) -> None:
    """Phonons of a crystal: phonopy_params.yaml, picture of bands and DOS, thermal properties."""
    from ase_potnet.integrations.phonon_files import parse_numbers, write_phonons

    written = write_phonons(
        file, output, plot=plot, model=model, supercell=parse_numbers("--supercell", supercell),
        mesh=parse_numbers("--mesh", mesh), nac=nac, relax=relax, method=method, device=device,
    )  # fmt: skip
    typer.echo("\n".join(f"written: {path}" for path in written))


@app.command()
def screen(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCES...", help="files, folders or patterns")],
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="SQLite file of results")],
    do: Annotated[str, typer.Option("--do", help="tasks in their order, such as relax,energy,hull")] = "relax,energy",
    model: Annotated[str, typer.Option("--model", "-m", help="packaged model or model folder")] = "default",
    set_: Annotated[list[str], typer.Option("--set", "-s", help="task.option=value, such as relax.fmax=0.01")] = [],  # noqa: B006
    export: Annotated[list[Path], typer.Option(help=".csv, .parquet, .extxyz or .json; may be repeated")] = [],  # noqa: B006
    unique: Annotated[str | None, typer.Option(help="exact or structure: do equal crystals once")] = None,
    time_limit: Annotated[float, typer.Option(help="seconds for a step of a task")] = 600.0,
    dtype: Annotated[str, typer.Option(help="float32 or float64")] = "float32",
    processes: Annotated[int, typer.Option("--processes", "-n", help="0: this one alone")] = 0,
    config: Annotated[Path | None, typer.Option(help="YAML for Parsl: clusters")] = None,
    shard: Annotated[int, typer.Option(help="crystals of a shard, with processes or config")] = 1000,
    device: Device = "auto",
) -> None:
    """Screen thousands of crystals: relaxation, energies, properties, hull, elasticity, phonon stability.

    The same command again goes on after an interruption, and repeats nothing.
    """
    from ase_potnet.screening.command import export_all, run_screen

    with _goes_on():
        summary = run_screen(
            sources, do, out, model=model, settings=set_, exports=export, unique=unique, time_limit=time_limit,
            dtype=dtype, processes=processes, config=config, shard=shard, device=device,
        )  # fmt: skip
    typer.echo(summary)
    export_all(out, export)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="file of results that `potnet screen` wrote")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="default: beside it, .html")
    ] = None,
) -> None:
    """One page of a screening: distributions, hull, failures, a table, structures; opens without network."""
    from ase_potnet.screening.report import write_report

    typer.echo(f"written: {write_report(results, output or results.with_suffix('.html'))}")


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="show the card of this model")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List the packaged models, or show the card of one."""
    from ase_potnet.pretrained import list_models, model_info

    infos = [model_info(known) for known in (list_models() if name is None else [name])]
    if name is not None and not as_json:
        typer.echo(infos[0].card)
        return
    if as_json:
        typer.echo(json.dumps([{"name": i.name, "task": i.task, "metadata": i.metadata} for i in infos], indent=2))
        return
    if not infos:
        typer.echo("This version has no packaged models; train one with `potnet train`.")
    for info in infos:
        typer.echo(f"{info.name}: {info.model}, predicts " + ", ".join(f"{t.name} ({t.unit})" for t in info.targets))
        for part, metrics in info.metadata.get("metrics", {}).items():
            for quantity, measures in metrics.items():
                if "mae" in measures:
                    typer.echo(f"    {part} {quantity}: MAE {measures['mae']:.4g}, {measures['count']:.0f} values")


if __name__ == "__main__":
    main()
