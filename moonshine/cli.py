"""The command line: `moonshine <command>`, the same as `python -m moonshine <command>`.

Commands import what they need when they run, so that help and messages about params.yaml come without torch.
"""

import argparse
import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from moonshine.errors import (
    DataError,
    DivergedError,
    Interrupted,
    LockedError,
    MachineError,
    MoonshineError,
    ParamsError,
    WriteError,
)
from moonshine.project import artefacts
from moonshine.project.rows import parse_model
from moonshine.runtime import processes, progress, startup
from moonshine.runtime.files import explain

if TYPE_CHECKING:
    from moonshine.params import Params
    from moonshine.project.rows import Row


def run() -> NoReturn:
    """One command, as a process of its own."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open to the end)
        getattr(sys, name).reconfigure(errors="replace")  # a terminal without UTF-8 shows question marks
    try:
        options = build_parser().parse_args()
        if options.run in WORKING_FOR_LONG:
            startup.restart_with_tunables()
        code = _carry_out(options)
    except Exception:  # noqa: BLE001 (a defect, which is shown as one)
        traceback.print_exc()
        code = 1
    _end_workers()
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:  # or Python's last flush would fail too, and change the exit code
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    gc.freeze()  # Python would look through torch's million objects once more
    sys.exit(code)


def _end_workers() -> None:
    """Loading workers ignore the signal by which Python asks them to end, and it would wait for them for ever."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker is killed
        for worker in active_children():
            worker.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (docs/errors.md)."""
    return _carry_out(build_parser().parse_args(arguments))


def _carry_out(options: argparse.Namespace) -> int:
    startup.set_up()
    try:
        if processes.COUNT > 1 and options.run not in (_train, _distil):
            raise ParamsError("torchrun starts train and distil; run other commands without it")
        if options.run in OF_THE_GRAPH and not GRAPH.is_file():
            raise ParamsError(f"{GRAPH}: not in this folder; run this from the project's root")
        options.run(options)
        sys.stdout.flush()
    except MoonshineError as error:
        return _fail(error)
    except BrokenPipeError:
        return 0  # whoever read our output has seen enough
    except OSError as error:
        if error.filename is None:
            reason = error.strerror or error
            return _fail(WriteError(f"standard output, or a file that was open: {reason}; mend that and run it again"))
        return _fail(explain(error, Path(error.filename)))
    except MemoryError:
        return _fail(MachineError("out of memory; lower recipe.batch_size, or run where there is more"))
    except KeyboardInterrupt:  # before or outside of the commands that stop on request
        return _fail(Interrupted(signal.SIGINT, "stopped by SIGINT"))
    return 0


def _fail(error: MoonshineError) -> int:
    """Say what is wrong, one line a mistake; of a mistake that all processes of a training make, the first tells.

    Whoever finds a folder locked leaves its owner's log alone.
    """
    for line in str(error).splitlines():
        if processes.FIRST:
            progress.say(f"error: {line}", log=not isinstance(error, LockedError))
        elif not isinstance(error, (DivergedError, Interrupted)):
            print(f"error: process {processes.RANK}: {line}", file=sys.stderr)
    return error.exit_code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moonshine", description="Distil networks into cheap ones.")
    parser.add_argument("--params", type=Path, default=artefacts.PARAMS, help="another file than params.yaml")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("check", help="check params.yaml before any work")
    command.add_argument(
        "--keys", action="store_true", help="the file alone, not its networks and data; a stage of DVC's"
    )
    command.set_defaults(run=_check)

    command = commands.add_parser("describe", help="parameters and MACs of networks, without data")
    command.add_argument("network", nargs="?", help="one network of params.yaml, layer by layer, instead of all")
    command.add_argument("--arch", help="one architecture on ImageNet instead of those of params.yaml")
    command.add_argument("--conv", help="its cheap convolution, for example 'G(N)'")
    command.set_defaults(run=_describe)

    command = commands.add_parser("use", help="put one of experiments/ in place as params.yaml")
    command.add_argument("experiment", help="its name, such as imagenet")
    command.set_defaults(run=_use)

    command = commands.add_parser("prepare", help="make the prepared data set")
    command.set_defaults(run=_prepare)

    command = commands.add_parser("fetch", help="publish a checkpoint that others trained")
    command.add_argument("network", help="its name in params.yaml")
    command.set_defaults(run=_fetch)

    command = commands.add_parser("train", help="train a network from scratch")
    command.add_argument("network", help="its name in params.yaml")
    command.add_argument("--seed", type=int, required=True)
    command.set_defaults(run=_train)

    command = commands.add_parser("distil", help="train a student with a teacher")
    command.add_argument("students", nargs="*", metavar="METHOD/NETWORK", help="by their names in params.yaml")
    command.add_argument("--seed", type=int, required=True)
    command.add_argument(
        "--together",
        action="store_true",
        help="several students, or all, at the cost of one teacher; their stages then publish them in seconds",
    )
    command.set_defaults(run=_distil)

    command = commands.add_parser("evaluate", help="measure one row of the tables")
    command.add_argument("row", help="train/NETWORK, distil/METHOD/NETWORK or fetch/NETWORK")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("attention_maps", help="draw where the teacher and two students look")
    command.set_defaults(run=_attention_maps)

    command = commands.add_parser("report", help="write the results page")
    command.add_argument("--partial", action="store_true", help="although rows have not run, which the page then says")
    command.set_defaults(run=_report)

    command = commands.add_parser("predict", help="the likeliest classes of images, by a published model")
    command.add_argument("model", type=Path, help="a file below models/")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    command.set_defaults(run=_predict)

    command = commands.add_parser("export", help="a published model in another format, checked against PyTorch")
    command.add_argument("model", type=Path, help="a file below models/")
    command.add_argument("--format", choices=["onnx"], default="onnx")
    command.add_argument("--output", type=Path, help="where to write it; exports/<model>.onnx")
    command.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        help="images to check with; the validation images of params.yaml's data set",
    )
    command.set_defaults(run=_export)

    command = commands.add_parser("status", help="how far the experiment is, from the folders of its runs")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument(
        "--watch", type=_seconds, nargs="?", const=5.0, metavar="SECONDS", help="again and again until all is trained"
    )
    command.set_defaults(run=_status)

    command = commands.add_parser("summary", help="what changed in the results, as Markdown for a pull request")
    command.add_argument("--against", default="HEAD", metavar="REVISION", help="of git; HEAD")
    command.set_defaults(run=_summary)

    command = commands.add_parser("show", help="print the results page and where it lies")
    command.set_defaults(run=_show)

    command = commands.add_parser("record", help="record in dvc.lock what stages made")
    command.add_argument("stages", nargs="*", help="such as train@digits-resnet34-0; without: all that it lacks")
    command.set_defaults(run=_record)

    command = commands.add_parser("accept", help="record an edit of code that changes no result")
    command.add_argument("stages", nargs="+", help="as train@digits-resnet34-0, or train for all its stages")
    command.add_argument("--unproven", action="store_true", help="accept more than comments, docstrings and layout")
    command.set_defaults(run=_accept)

    command = commands.add_parser("lineage", help="from a number in a table back to the raw data, each link checked")
    command.add_argument("target", help="a row, such as train/resnet34, or a model's path")
    command.set_defaults(run=_lineage)

    command = commands.add_parser("verify", help="hash data, models and results again, against what is recorded")
    command.set_defaults(run=_verify)

    command = commands.add_parser("adopt", help="go on from a run that older code or libraries made")
    command.add_argument("row", help="train/NETWORK or distil/METHOD/NETWORK")
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--run", dest="older", help="the start of the older run's name, where there are several")
    command.set_defaults(run=_adopt)

    command = commands.add_parser("unlock", help="remove the locks that killed engines left")
    command.set_defaults(run=_unlock)

    command = commands.add_parser("merge_lock", help="merge two versions of dvc.lock stage by stage, for git")
    command.add_argument(
        "versions",
        nargs="*",
        type=Path,
        metavar="VERSION",
        help="base, ours and theirs; without them, what the merge just made has mixed is left out of dvc.lock",
    )
    command.set_defaults(run=_merge_lock)

    command = commands.add_parser("sync", help="make Snakemake go by dvc.lock, after dvc pull, checkout or repro")
    command.set_defaults(run=_sync)
    for command in commands.choices.values():  # after the command as well as before it
        command.add_argument("--params", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _read(options: argparse.Namespace) -> "Params":
    from moonshine.params import read_params

    return read_params(options.params)


def _check(options: argparse.Namespace) -> None:
    params = _read(options)
    if options.keys:
        from moonshine.engines.live import require_no_snakemake_beside_dvc
        from moonshine.params.checked import mark_checked
        from moonshine.project.container_image import require_container_image_of_this_lock

        require_no_snakemake_beside_dvc()
        require_container_image_of_this_lock()  # before DVC deletes what another stage has made
        _require_own_folders()
        mark_checked()
        return
    from moonshine.checks.data import check_images
    from moonshine.checks.networks import check_batch_norms, check_networks

    _require_own_folders()
    check_images(params)
    check_networks(params)
    check_batch_norms(params)
    progress.say(f"{options.params}: fine; {len(params.rows)} rows, seeds {params.seeds}")


def _describe(options: argparse.Namespace) -> None:
    from moonshine.commands.describe import describe_architecture, describe_experiment, describe_network

    if options.arch and options.network:
        raise ParamsError("describe takes a network of params.yaml or --arch, not both")
    if options.conv and not options.arch:
        raise ParamsError("--conv needs --arch; the networks of params.yaml have theirs there")
    if options.arch:
        describe_architecture(options.arch, options.conv)
    elif options.network:
        describe_network(_read(options), options.network)
    else:
        describe_experiment(_read(options))


def _use(options: argparse.Namespace) -> None:
    from moonshine.commands.use import use

    use(options.experiment, options.params)


def _prepare(options: argparse.Namespace) -> None:
    params = _read(options)
    _start(f"prepare/{params.dataset.name}")
    from moonshine.stages.prepare import prepare

    with _unchanged(options, "prepare"):
        prepare(params)


def _fetch(options: argparse.Namespace) -> None:
    params = _read(options)
    _require_row(params, f"fetch/{options.network}")
    _start(f"{params.experiment}/fetch/{options.network}")
    from moonshine.stages.fetch import fetch

    _check_data(params)
    with _unchanged(options, "fetch", [artefacts.manifest(params.dataset.name)], network=options.network):
        fetch(params, options.network)


def _train(options: argparse.Namespace) -> None:
    params = _read(options)
    _require_row(params, f"train/{options.network}", options.seed)
    _in_processes(params)
    _start(f"{params.experiment}/train/{options.network}/seed{options.seed}")
    from moonshine.stages.train import train

    _prepare_to_compile(params)
    _check_data(params)
    with _unchanged(options, "train", [artefacts.manifest(params.dataset.name)], network=options.network):
        train(params, options.network, options.seed)


def _distil(options: argparse.Namespace) -> None:
    params = _read(options)
    every = [row.argument for row in params.rows if row.stage == "distil"]
    students = options.students or (every if options.together else [])
    if not students or (len(students) > 1 and not options.together):
        raise ParamsError("distil takes one METHOD/NETWORK, or --together and any number of them")
    students = list(dict.fromkeys(students))  # a lock cannot tell a student from itself
    rows = [_require_row(params, f"distil/{student}", options.seed) for student in students]
    _in_processes(params)
    from moonshine.stages.distil import distil, distil_together

    _prepare_to_compile(params)
    _check_data(params)
    if options.together:
        _start(f"{params.experiment}/distil/together/seed{options.seed}")
        _check_models(params, [parse_model(params.teacher)])
        for run in distil_together(params, rows, options.seed):
            progress.say(f"{run.row} seed {options.seed}: finished in {run.path}, to be published by its own stage")
    else:
        _start(f"{params.experiment}/distil/{students[0]}/seed{options.seed}")
        inputs = [artefacts.manifest(params.dataset.name), artefacts.named_model(params.experiment, params.teacher)]
        with _unchanged(options, "distil", inputs, method=str(rows[0].method), network=rows[0].network):
            _check_models(params, [parse_model(params.teacher)])
            distil(params, rows[0], options.seed)


def _evaluate(options: argparse.Namespace) -> None:
    params = _read(options)
    row = _require_row(params, options.row)
    _start(f"{params.experiment}/evaluate/{row}")
    from moonshine.checks.made_for import seeds_of
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.evaluate import evaluate

    _check_data(params)
    seeds = seeds_of(params.seeds, row)
    models = [artefacts.model(params.experiment, row, seed) for seed in seeds]
    with _unchanged(options, "evaluate", [artefacts.manifest(params.dataset.name), *models]):
        _check_models(params, [(row, seed) for seed in seeds])
        set_aside_leftovers(params)
        evaluate(params, row)


def _attention_maps(options: argparse.Namespace) -> None:
    params = _read(options)
    _start(f"{params.experiment}/attention_maps")
    from moonshine.stages.attention_maps import attention_maps

    _check_data(params)
    names = params.shown_models.values()
    models = [artefacts.named_model(params.experiment, name) for name in names]
    inputs = [artefacts.manifest(params.dataset.name), *models]
    with _unchanged(options, "attention_maps", inputs), progress.missing_glyphs_said_once():
        _check_models(params, map(parse_model, names))
        attention_maps(params)


def _report(options: argparse.Namespace) -> None:
    params = _read(options)
    _start(f"{params.experiment}/report")
    from moonshine.checks.made_for import require_results
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.report import report

    experiment = params.experiment
    curves = [artefacts.curve(experiment, row, seed) for row in params.seeded_rows for seed in params.seeds]
    metrics = [artefacts.metrics(experiment, row) for row in params.rows]
    maps = artefacts.attention_maps(experiment).glob("*")
    with _unchanged(options, "report", [*curves, *metrics, *maps]), progress.missing_glyphs_said_once():
        require_results(params, options.params)
        set_aside_leftovers(params)
        report(params, options.partial)


def _predict(options: argparse.Namespace) -> None:
    from moonshine.deployment.predict import predict

    predict(options.model, options.images)


def _export(options: argparse.Namespace) -> None:
    dataset = None if options.images or not options.params.exists() else _read(options).dataset.name
    from moonshine.deployment.export import export

    export(options.model, options.output, options.images, dataset)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds")
    return seconds


def _status(options: argparse.Namespace) -> None:
    from moonshine.commands.status import show_status

    show_status(_read(options), options.json, options.watch)


def _summary(options: argparse.Namespace) -> None:
    from moonshine.commands.summary import summary

    print(summary(options.against), end="")


def _show(options: argparse.Namespace) -> None:
    path = artefacts.results_folder(_read(options).experiment) / "README.md"
    if not path.exists():
        raise DataError(f"{path}: missing; run `moonshine report`")
    print(path.read_text(encoding="utf-8"))
    print(f"This page: {path}")


def _record(options: argparse.Namespace) -> None:
    _check_params_of_engines(options)
    _require_own_folders()
    from moonshine.engines.record import record

    record(options.stages)


def _accept(options: argparse.Namespace) -> None:
    _check_params_of_engines(options)
    from moonshine.engines.accept import accept

    accept(options.stages, options.unproven)


def _lineage(options: argparse.Namespace) -> None:
    params = _read(options)
    from moonshine.engines.lineage import lineage

    lineage(params, options.target)


def _verify(options: argparse.Namespace) -> None:
    params = _read(options)
    from moonshine.engines.verify import verify

    verify(params)


def _adopt(options: argparse.Namespace) -> None:
    params = _read(options)
    row = _require_row(params, options.row, options.seed)
    from moonshine.commands.adopt import adopt

    adopt(params, row, options.seed, options.older)


def _unlock(options: argparse.Namespace) -> None:
    from moonshine.engines.unlock import unlock

    unlock()


def _merge_lock(options: argparse.Namespace) -> None:
    from moonshine.engines.merge_lock import leave_out_what_was_mixed, merge_lock

    if not options.versions:
        leave_out_what_was_mixed()
    elif len(options.versions) == 3:
        merge_lock(*options.versions)
    else:
        raise ParamsError("merge_lock takes three versions, base, ours and theirs, or none")


def _sync(options: argparse.Namespace) -> None:
    _check_params_of_engines(options)
    _require_own_folders()
    from moonshine.engines.sync import sync

    sync()


def _check_params_of_engines(options: argparse.Namespace) -> None:
    """For commands that write what engines go by: these read params.yaml and no other file."""
    if options.params.absolute() != artefacts.PARAMS.absolute():
        raise ParamsError(f"--params {options.params}: engines go by {artefacts.PARAMS}; put it in place there")
    _read(options)


def _require_row(params: "Params", name: str, seed: int | None = None) -> "Row":
    from moonshine.runtime.suggest import suggest

    rows = {row.name: row for row in params.rows}
    if name not in rows:
        raise ParamsError(f'"{name}" is no row of params.yaml{suggest(name, rows)}')
    if seed is not None and seed not in params.seeds:
        raise ParamsError(f"--seed {seed}: params.yaml has seeds {params.seeds}")
    return rows[name]


def _in_processes(params: "Params") -> None:
    """Go on in as many processes as the recipe says, and there only; torchrun may have started them already."""
    count = params.recipe.processes or 1
    if processes.LOCAL_RANK is None and count > 1:
        from moonshine.runtime.torchrun import run_processes

        sys.exit(run_processes(count, params.machine.device))
    if count != processes.COUNT:
        raise ParamsError(f"recipe.processes: {count}, but torchrun started {processes.COUNT}; make them equal")


def _prepare_to_compile(params: "Params") -> None:
    if params.recipe.compile:
        startup.leave_out_triton(params.machine.device)


def _check_data(params: "Params") -> None:
    from moonshine.checks.data import check_data

    check_data(params)


def _check_models(params: "Params", models: "Iterable[tuple[Row, int | None]]") -> None:
    from moonshine.checks.made_for import require_models

    require_models(params, models)


def _unchanged(
    options: argparse.Namespace, stage: str, inputs: Iterable[Path] = (), **names: str
) -> AbstractContextManager[None]:
    from moonshine.checks.unchanged import unchanged

    return unchanged(options.params, stage, inputs, **names)


def _require_own_folders() -> None:
    """Before work that DVC would refuse to record: what lies behind a link is outside of the project to it."""
    for folder in map(Path, ("data", "models", "results")):
        if GRAPH.is_file() and folder.is_symlink():
            raise MachineError(
                f"{folder}: a link, where DVC tracks nothing; mount the disk there, or clone the project onto it"
            )


def _start(log: str) -> None:
    """For commands that work for long: refuse what would spoil their outputs, stop on request, and keep a log."""
    from moonshine.engines.live import require_no_snakemake_beside_dvc
    from moonshine.project.container_image import require_container_image_of_this_lock
    from moonshine.project.lock_file import require_whole_record
    from moonshine.runtime import signals

    require_whole_record()
    require_no_snakemake_beside_dvc()
    require_container_image_of_this_lock()
    _require_own_folders()
    if processes.COUNT == 1:  # several first meet, and then stop together
        signals.install_handlers()
    progress.keep_log(Path("logs", log + ".log"))


GRAPH = Path("dvc.yaml")
WORKING_FOR_LONG = (_prepare, _fetch, _train, _distil, _evaluate, _attention_maps, _report)
OF_THE_GRAPH = (_summary, _record, _accept, _verify, _unlock, _sync)
"""Commands that ask engines or git, which look for the project in the folders above as well."""
