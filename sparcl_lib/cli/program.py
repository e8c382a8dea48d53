"""The command line: parse, call, print. Commands import the heavy modules that they need."""

import errno
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from sparcl_lib.cli import course as course_commands
from sparcl_lib.cli import data as data_commands
from sparcl_lib.cli import experiments
from sparcl_lib.cli.bench import bench
from sparcl_lib.cli.export import export
from sparcl_lib.cli.listings import methods
from sparcl_lib.cli.listings import settings as settings_command
from sparcl_lib.cli.options import (
    DATASET_HELP,
    SETUP_HELP,
    TASK_HELP,
    Accelerator,
    Against,
    BackboneWeights,
    ConfigFile,
    DataRoot,
    Devices,
    Jobs,
    Plugins,
    Seeds,
    Settings,
    Setup,
    layers,
    numbers,
    print_checks,
    spelled,
)
from sparcl_lib.cli.predict import predict
from sparcl_lib.cli.reproduce import complete_recipe, recipes, reproduce
from sparcl_lib.cli.split import split
from sparcl_lib.errors import FailedElsewhere, OutsideFailed, UserError, printable, shown
from sparcl_lib.method_table import METHODS
from sparcl_lib.published.tables import get_recipe
from sparcl_lib.stops import stops_come_out

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LONGEST = 2000
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Class-incremental semantic segmentation: learn, forget, remember.",
)
app.add_typer(course_commands.app, name="course")
app.add_typer(data_commands.app, name="data")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where tables, page and runs go.")] = Path(
        "demo-results"
    ),
    task: Annotated[str, typer.Option(help="A MiniVOC task.")] = "6-4",
    setup: Setup = "disjoint",
    seeds: Seeds = "0",
    settings: Settings = None,
    jobs: Jobs = None,
) -> None:
    """Train FT, MiB, SDR and joint on MiniVOC and show what is forgotten: minutes on a CPU."""
    from sparcl_lib.demo import run_demo

    table = run_demo(out, task, setup, numbers(seeds, "--seeds"), settings or [], jobs)
    print(table)
    print(f"\nThe page to look at: {out / 'report.html'}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Run directory.")],
    dataset: Annotated[str | None, typer.Option(help=DATASET_HELP)] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}.")] = None,
    setup: Annotated[str | None, typer.Option(help=SETUP_HELP, show_default="disjoint")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A row of a published table, such as voc-15-1-disjoint-SDR, in place of "
            "--dataset, --task, --setup and --method; sparcl recipes lists them.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    data_root: DataRoot = None,
    steps: Annotated[str, typer.Option(help="Steps to train, as in 0,1 or 0-2, or all.")] = "all",
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip steps that are there, go on inside a begun one.")
    ] = False,
    start_from: Annotated[
        Path | None, typer.Option(help="Take step 0 from this run instead of training it.")
    ] = None,
    accept_edits: Annotated[
        bool,
        typer.Option(
            "--accept-edits",
            help="With --resume or --start-from: go on although code of a --plugin was edited.",
        ),
    ] = False,
    backbone_weights: BackboneWeights = None,
    config: ConfigFile = None,
    settings: Settings = None,
    plugins: Plugins = None,
    accelerator: Accelerator = "auto",
    devices: Devices = "1",
    num_nodes: Annotated[
        int, typer.Option(help="How many machines, each started by srun or torchrun.")
    ] = 1,
) -> None:
    """Train and evaluate all steps of one method, or one row of a published table."""
    row = _row_of(recipe, dataset=dataset, task=task, setup=setup, method=method)

    from sparcl_lib.config import resolve
    from sparcl_lib.plugins import load_plugins, tell_of_unused
    from sparcl_lib.training import train as train_run

    if accept_edits and not (resume or start_from):
        raise UserError("--accept-edits goes with --resume or --start-from: add one")
    load_plugins(plugins or [])
    overrides = layers(config, settings, backbone_weights)
    fixed = {"task": row.task, "setup": row.setup, "data_root": data_root}
    run_config = resolve(row.dataset, row.method, [row.settings, *overrides], **fixed)
    tell_of_unused([run_config])
    try:
        metrics = train_run(
            run_config,
            out,
            steps=None if steps == "all" else numbers(steps, "--steps"),
            resume=resume,
            start_from=start_from,
            accept_edits=accept_edits,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
        )
    except OutsideFailed as error:
        saved = list(out.glob("step-*/in_progress.pt"))
        more = "; mend it, and --resume --accept-edits goes on from the last save" if saved else ""
        raise UserError(f"{error}{more}") from error
    _print_steps(metrics)


class _Row(NamedTuple):
    """What `train` trains, by a recipe or by options."""

    dataset: str
    task: str
    setup: str
    method: str
    settings: Mapping[str, Any]


def _row_of(recipe: str | None, **options: str | None) -> _Row:
    """Raises UserError for an option beside a recipe, and for one that is missing without."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if recipe is None:
        options = {**options, "setup": options["setup"] or "disjoint"}
        missing = [f"--{name}" for name, value in options.items() if value is None]
        if missing:
            raise UserError(
                f"nothing to train: give {', '.join(missing)}, or --recipe NAME in place of "
                f"--dataset, --task, --setup and --method"
            )
        return _Row(settings={}, **{name: str(value) for name, value in options.items()})
    row = get_recipe(recipe)
    if given:
        raise UserError(f"--recipe {row.name} says {', '.join(given)}: leave one of them out")
    return _Row(row.dataset, row.task, row.setup, row.method, row.settings)


for command in (
    predict,
    bench,
    export,
    experiments.ablate,
    experiments.sweep,
    experiments.compare,
    split,
    methods,
    settings_command,
    recipes,
    reproduce,
):
    app.command()(command)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    data_root: Annotated[
        str | None, typer.Option(help="Folder of the data, if it lies elsewhere now.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="YAML file of the data, if it lies elsewhere now.")
    ] = None,
    plugins: Plugins = None,
    accelerator: Accelerator = "auto",
    devices: Devices = "1",
) -> None:
    """Evaluate every checkpoint of a run again; refused if the data are not what they were."""
    from sparcl_lib.plugins import load_plugins
    from sparcl_lib.training import evaluate as evaluate_run

    load_plugins(plugins or [])
    _print_steps(
        evaluate_run(
            run, dataset=dataset, data_root=data_root, accelerator=accelerator, devices=devices
        )
    )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.")],
    format: Annotated[
        str,
        typer.Option(
            help="html, md, latex, csv, or classes: CSV of every class and step. With --against "
            "md, latex or csv."
        ),
    ] = "md",
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output without.")
    ] = None,
    against: Against = None,
) -> None:
    """One table or page over several runs, the published row beside each of ours."""
    from sparcl_lib.report import load_runs, render
    from sparcl_lib.report.runs import by_method
    from sparcl_lib.writing import write_text

    loaded = load_runs(runs)
    against = spelled(against, by_method(loaded))
    if out is None:
        print(render(loaded, format, against))
        return
    if format.lower() == "html" and against is None:
        from sparcl_lib.report.page import write_report

        write_report(loaded, out, "Results")  # with a link to the course
    else:
        write_text(out, render(loaded, format, against))
    print(f"wrote {out}")


@app.command()
def env() -> None:
    """Check this installation: OK or FAIL, a line each."""
    from sparcl_lib.environment import check_environment

    print_checks(check_environment())


def _print_steps(metrics: dict[str, Any]) -> None:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from sparcl_lib.report import steps_text

    rank_zero_only(print)(steps_text(metrics))


def run(arguments: list[str] | None = None) -> int:
    """The status of `sparcl`: 2, and a line on stderr, for a user's mistake, 130 for Ctrl-C."""
    command = typer.main.get_command(app)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_values(arguments)
        with stops_come_out():
            status = command.main(arguments, prog_name="sparcl", standalone_mode=False)
    except FailedElsewhere:
        return 2  # it has said why
    except UserError as error:
        return _failed(str(error))
    except OSError as error:  # of a file, or of standard output, that nobody thought of
        return _failed(_of_system(error))
    except ModuleNotFoundError as error:  # a command whose extra is not installed
        from sparcl_lib.environment import missing_package

        advice = missing_package((error.name or "").partition(".")[0])
        if advice is None:
            raise
        return _failed(advice)
    except Exception as error:
        # Typer's own usage errors, whichever Click it comes with.
        if not hasattr(error, "format_message"):
            raise
        return _of_usage(error, error.format_message())
    return status if isinstance(status, int) else 0


def _check_values(arguments: list[str]) -> None:
    """Raise UserError for an option with an empty value, as an unset variable of a shell gives."""
    if arguments[:2] == ["course", "lab"]:
        return  # --ServerApp.token= is one of Jupyter's, and right
    for before, argument in pairwise(["", *arguments]):
        name, sign, value = argument.partition("=")
        if before.startswith("--") and "=" not in before and not argument:
            raise UserError(f"{before} is empty: give a value")
        if name.startswith("--") and sign and not value:
            raise UserError(f"{name} is empty: give a value")


def _of_usage(error: Exception, message: str) -> int:
    """What Typer says, with the value that it does not show; after a help text nothing."""
    if type(error).__name__ == "NoArgsIsHelpError":
        if message:
            print(message)
        return 2
    problems = getattr(error.__cause__, "errors", None)  # of pydantic
    if callable(problems):
        message = f"{message.rstrip('.')}, got {shown(problems()[0]['input'])}"
    command = getattr(getattr(error, "ctx", None), "command_path", "sparcl")
    return _failed(f"{message} (see {command} --help)")


def _of_system(error: OSError) -> str:
    """What the system says of a file, and what to do about it. Raises what it says of no file."""
    if error.errno is None or (error.filename is None and error.errno not in _DISK):
        raise error
    place = "" if error.filename is None else f"{error.filename}: "
    advice = "free space" if error.errno in _DISK else "correct the path, or its permissions"
    return f"{place}{error.strerror}: {advice}, then run the same command again"


def _failed(message: str) -> int:
    line = " ".join(message.split())
    print(f"sparcl: {printable(line[:_LONGEST])}", file=sys.stderr)
    return 2
