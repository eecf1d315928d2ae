"""The stages of the pipeline as commands, as both engines call them."""

import argparse
import sys
from typing import TYPE_CHECKING

from moonshine.cli.command import (
    Command,
    add_seed,
    check_data,
    check_models,
    costs_of,
    integer,
    read,
    require_row,
    start,
    unchanged,
)
from moonshine.errors import ParamsError
from moonshine.project import artefacts
from moonshine.project.rows import Row, parse_model
from moonshine.runtime import distributed, progress, startup
from moonshine.runtime.suggest import suggest

if TYPE_CHECKING:
    from moonshine.params import Params


def _prepare(options: argparse.Namespace) -> None:
    params = read(options)
    start(f"prepare/{params.dataset.name}")
    from moonshine.stages.prepare import prepare

    with unchanged(options, "prepare"):
        prepare(params)


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="its name in params.yaml")


def _fetch(options: argparse.Namespace) -> None:
    params = read(options)
    require_row(params, f"fetch/{options.network}")
    start(f"{params.experiment}/fetch/{options.network}")
    from moonshine.stages.fetch import fetch

    check_data(params)
    stage = "fetch" if options.network in params.fetch else "fetch_teacher"
    with unchanged(options, stage, [artefacts.manifest(params.dataset.name)], network=options.network):
        fetch(params, options.network)


def _network_and_seed(parser: argparse.ArgumentParser) -> None:
    _network(parser)
    add_seed(parser)


def _train(options: argparse.Namespace) -> None:
    params = read(options)
    row = require_row(params, f"train/{options.network}", options.seed)
    _in_processes(params)
    start(f"{params.experiment}/train/{options.network}/seed{options.seed}")
    from moonshine.stages.train import train

    _prepare_to_compile(params, [row])
    check_data(params)
    inputs = [artefacts.manifest(params.dataset.name)]
    if params.needs_teacher(row):
        inputs.append(artefacts.named_model(params.experiment, params.teacher))
    with unchanged(options, "train", inputs, network=options.network):
        if params.needs_teacher(row):
            check_models(params, [parse_model(params.teacher)])
        train(params, options.network, options.seed)


def _students(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("students", nargs="*", metavar="METHOD/NETWORK", help="their names in params.yaml")
    add_seed(parser)
    parser.add_argument(
        "--together",
        action="store_true",
        help="train several students, by default all of params.yaml, with one shared pass of the teacher per batch; "
        "the models are then published in seconds by each student's own stage",
    )


def _distil(options: argparse.Namespace) -> None:
    params = read(options)
    every = [row.argument for row in params.rows if row.stage == "distil"]
    students = options.students or (every if options.together else [])
    if not students or (len(students) > 1 and not options.together):
        raise ParamsError("distil takes one METHOD/NETWORK, or --together and any number of them")
    students = list(dict.fromkeys(students))  # a student named twice would find its own run locked
    rows = [require_row(params, f"distil/{student}", options.seed) for student in students]
    _in_processes(params)
    from moonshine.stages.distil import distil, distil_together

    _prepare_to_compile(params, rows)
    check_data(params)
    if options.together:
        start(f"{params.experiment}/distil/together/seed{options.seed}")
        check_models(params, [parse_model(params.teacher)])
        for run in distil_together(params, rows, options.seed):
            progress.say(f"{run.row} seed {options.seed}: finished in {run.path}, to be published by its own stage")
    else:
        start(f"{params.experiment}/distil/{students[0]}/seed{options.seed}")
        inputs = [artefacts.manifest(params.dataset.name), artefacts.named_model(params.experiment, params.teacher)]
        with unchanged(options, "distil", inputs, method=str(rows[0].method), network=rows[0].network):
            check_models(params, [parse_model(params.teacher)])
            distil(params, rows[0], options.seed)


def _in_processes(params: "Params") -> None:
    """Continue only in as many processes as the recipe sets; torchrun may have started them already."""
    count = params.recipe.processes or 1
    if distributed.LOCAL_RANK is None and count > 1:
        from moonshine.runtime.torchrun import run_processes

        sys.exit(run_processes(count, params.machine.device, params.machine.trainings_per_gpu))
    if count != distributed.WORLD_SIZE:
        raise ParamsError(f"recipe.processes: {count}, but torchrun started {distributed.WORLD_SIZE}; make them equal")


def _prepare_to_compile(params: "Params", rows: list[Row]) -> None:
    if any(params.recipe_of(row).compile for row in rows):
        startup.leave_out_triton(params.machine.device)
        startup.keep_compiled_code(artefacts.COMPILED)


def _row(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="train/NETWORK, distil/METHOD/NETWORK or fetch/NETWORK")


def _evaluate(options: argparse.Namespace) -> None:
    params = read(options)
    row = require_row(params, options.row)
    if row not in params.evaluated_rows:
        raise ParamsError(f"{row}: is for other classes than the data set (fetch_teacher); its errors mean nothing")
    start(f"{params.experiment}/evaluate/{row}")
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.evaluate import evaluate

    check_data(params)
    seeds = params.seeds_of(row)
    models = [artefacts.model(params.experiment, row, seed) for seed in seeds]
    with unchanged(options, "evaluate", [artefacts.manifest(params.dataset.name), *models]):
        check_models(params, [(row, seed) for seed in seeds])
        set_aside_leftovers(params)
        evaluate(params, row)


def _compare(options: argparse.Namespace) -> None:
    params = read(options)
    start(f"{params.experiment}/compare")
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.compare import compare

    seeds = [(row, seed) for row in params.evaluated_rows for seed in params.seeds_of(row)]
    inputs = [artefacts.predictions(params.experiment, row, seed) for row, seed in seeds]
    with unchanged(options, "compare", inputs):
        set_aside_leftovers(params)
        compare(params)


def _quantise(options: argparse.Namespace) -> None:
    params = read(options)
    row = require_row(params, options.row)
    if row not in params.quantised_rows:
        key = f"quantise_fetch.{row.network}" if row.stage == "fetch" else f"quantise.{row}"
        raise ParamsError(f"{row}: not among the rows that are quantised; add {key} to {options.params}")
    start(f"{params.experiment}/quantise/{row}")
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.quantise import quantise_row

    check_data(params)
    seeds = params.seeds_of(row)
    models = [artefacts.model(params.experiment, row, seed) for seed in seeds]
    stage = "quantise_fetch" if row.stage == "fetch" else "quantise"
    inputs = [artefacts.manifest(params.dataset.name), *models]
    with unchanged(options, stage, inputs, row=row.name, network=row.network):
        check_models(params, [(row, seed) for seed in seeds])
        set_aside_leftovers(params)
        quantise_row(params, row)


def _name_of_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its name in params.yaml")
    parser.add_argument(
        "--adopt",
        metavar="NETWORK",
        help="do not search, but write the convolutions that were found to networks.NETWORK of params.yaml",
    )
    parser.add_argument(
        "--candidate",
        metavar="K",
        type=integer,
        help="with --adopt: those of candidate K, instead of those of the best one",
    )


def _search(options: argparse.Namespace) -> None:
    params, name = read(options), options.name
    if name not in params.search:
        raise ParamsError(f'unknown search "{name}"{suggest(name, params.search)}')
    if options.candidate is not None and not options.adopt:
        raise ParamsError("--candidate: for --adopt NETWORK, which is missing")
    if options.adopt:
        from moonshine.commands.adopt_convs import adopt_convs

        adopt_convs(options.params, params, name, options.adopt, options.candidate)
        return
    start(f"{params.experiment}/search/{name}")
    from moonshine.checks.input_folders import make_input_folders
    from moonshine.stages.search import search

    check_data(params)
    machine = params.search[name].machine
    tables = [] if machine is None else [artefacts.block_latency(params.experiment, machine)]
    with unchanged(options, "search", [artefacts.manifest(params.dataset.name), *tables], search=name):
        search(params, name)
    make_input_folders(params)


def _attention_maps(options: argparse.Namespace) -> None:
    params = read(options)
    start(f"{params.experiment}/attention_maps")
    from moonshine.stages.attention_maps import attention_maps

    check_data(params)
    names = params.shown_models.values()
    models = [artefacts.named_model(params.experiment, name) for name in names]
    inputs = [artefacts.manifest(params.dataset.name), *models]
    with unchanged(options, "attention_maps", inputs), progress.missing_glyphs_said_once():
        check_models(params, map(parse_model, names))
        attention_maps(params)


def _partial(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partial", action="store_true", help="write the page even if rows are missing, and name them on it"
    )


def _report(options: argparse.Namespace) -> None:
    params = read(options)
    start(f"{params.experiment}/report")
    from moonshine.checks.input_folders import make_input_folders
    from moonshine.checks.made_for import require_results
    from moonshine.engines.leftovers import set_aside_leftovers
    from moonshine.stages.report import report

    experiment = params.experiment
    curves = [artefacts.curve(experiment, row, seed) for row in params.seeded_rows for seed in params.seeds]
    metrics = [artefacts.metrics(experiment, row) for row in params.evaluated_rows]
    confusions = [artefacts.confusion(experiment, row) for row in params.evaluated_rows]
    comparison = [artefacts.comparison(experiment, name) for name in ("pairs", "fidelity")]
    metrics += [artefacts.int8_metrics(experiment, row) for row in params.quantised_rows]
    maps = artefacts.attention_maps(experiment).glob("*")
    latencies = artefacts.latency_folder(experiment).glob("*.json")
    searches = [artefacts.search(experiment, name) for name in params.search]
    make_input_folders(params)
    with unchanged(options, "report", [*curves, *metrics, *confusions, *comparison, *maps, *latencies, *searches]):
        require_results(params, options.params)
        set_aside_leftovers(params)
        report(params, costs_of(params) if options.partial else None)


COMMANDS = (
    Command("prepare", "prepare the data set", _prepare, ("moonshine prepare",), is_long=True),
    Command(
        "fetch",
        "download a published checkpoint and publish it as a model",
        _fetch,
        ("moonshine fetch resnet34",),
        _network,
        is_long=True,
    ),
    Command(
        "train",
        "train a network from scratch",
        _train,
        ("moonshine train resnet34 --seed 0",),
        _network_and_seed,
        "An interrupted training resumes from its last checkpoint when the same command runs again.",
        is_long=True,
        is_distributed=True,
    ),
    Command(
        "distil",
        "train a student with a teacher",
        _distil,
        ("moonshine distil at/resnet34-sep --seed 0", "moonshine distil --together --seed 0"),
        _students,
        "An interrupted training resumes from its last checkpoint when the same command runs again.",
        is_long=True,
        is_distributed=True,
    ),
    Command(
        "search",
        "search for the convolutions of a network's residual blocks (BlockSwap)",
        _search,
        ("moonshine search small", "moonshine search small --adopt student"),
        _name_of_search,
        "An interrupted search resumes from its last checkpoint when the same command runs again.",
        is_long=True,
    ),
    Command(
        "evaluate",
        "measure the errors and the cost of one row of the tables, all seeds",
        _evaluate,
        ("moonshine evaluate train/resnet34", "moonshine evaluate distil/at/resnet34-sep"),
        _row,
        is_long=True,
    ),
    Command(
        "compare",
        "compare what all rows predict with each other and with the teacher",
        _compare,
        ("moonshine compare",),
    ),
    Command(
        "quantise",
        "measure one row of the tables in int8, all seeds, and write the int8 networks",
        _quantise,
        ("moonshine quantise train/resnet34-sep",),
        _row,
        is_long=True,
    ),
    Command(
        "attention-maps",
        "draw where the teacher and two students look",
        _attention_maps,
        ("moonshine attention-maps",),
        is_long=True,
    ),
    Command(
        "report",
        "write the results page, its tables and its figures",
        _report,
        ("moonshine report", "moonshine report --partial"),
        _partial,
        is_long=True,
    ),
)
