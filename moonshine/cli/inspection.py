"""Commands that inspect params.yaml before any work, runs in progress, and results and where they come from."""

import argparse

from moonshine.cli.command import Command, amount, between, costs_of, read, require_own_folders
from moonshine.errors import DataError, ParamsError
from moonshine.project import artefacts
from moonshine.runtime import progress


def _keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys", action="store_true", help="check the file alone, not its networks and data; DVC's first stage does so"
    )


def _check(options: argparse.Namespace) -> None:
    params = read(options)
    if options.keys:
        from moonshine.checks.input_folders import make_input_folders
        from moonshine.engines.live import require_no_snakemake_beside_dvc
        from moonshine.params.checked import mark_checked
        from moonshine.project.container_image import require_container_image_of_this_lock

        require_no_snakemake_beside_dvc()
        require_container_image_of_this_lock()  # before DVC deletes what another stage has made
        require_own_folders()
        make_input_folders(params)
        mark_checked()
        return
    from moonshine.checks.data import check_images
    from moonshine.checks.likely import likely_mistakes
    from moonshine.checks.made_for import check_found_convs
    from moonshine.checks.networks import check_batch_norms, check_networks
    from moonshine.preparation.raw_images import raw_changes

    require_own_folders()
    check_images(params)
    check_found_convs(params)
    check_networks(params)
    check_batch_norms(params)
    if params.search:
        from moonshine.search.space import check_searches

        check_searches(params)
    for likely in likely_mistakes(params):
        progress.say(f"warning: {options.params}: {likely}")
    if changes := raw_changes(params):
        progress.say(f"warning: {changes}")
    progress.say(f"{options.params}: fine; {len(params.rows)} rows, seeds {params.seeds}")


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        nargs="?",
        metavar="NETWORK",
        help="a network of params.yaml, layer by layer (default: all, in short)",
    )
    parser.add_argument("--arch", help="an architecture on ImageNet, instead of the networks of params.yaml")
    parser.add_argument("--conv", help="the cheap convolution of --arch, for example 'G(N)'")


def _describe(options: argparse.Namespace) -> None:
    from moonshine.commands.describe import describe_architecture, describe_experiment, describe_network

    if options.arch and options.network:
        raise ParamsError("describe takes a network of params.yaml or --arch, not both")
    if options.conv and not options.arch:
        raise ParamsError("--conv needs --arch; the networks of params.yaml have theirs there")
    if options.arch:
        describe_architecture(options.arch, options.conv)
    elif options.network:
        describe_network(read(options), options.network)
    else:
        describe_experiment(read(options))


def _how_to_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--watch",
        type=between(0, 1e6, "a number of seconds above 0"),
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="print it again every SECONDS (5 if not given) until everything is trained",
    )


def _status(options: argparse.Namespace) -> None:
    from moonshine.commands.status import show_status

    show_status(read(options), options.json, options.watch)


def _revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", default="HEAD", metavar="REVISION", help="git revision to compare with")


def _summary(options: argparse.Namespace) -> None:
    from moonshine.commands.summary import summary

    print(summary(options.against), end="")


def _show(options: argparse.Namespace) -> None:
    path = artefacts.results_folder(read(options).experiment) / "README.md"
    if not path.exists():
        raise DataError(f"{path}: missing; run `moonshine report`")
    print(path.read_text(encoding="utf-8"))
    print(f"This page: {path}")


def _budget(parser: argparse.ArgumentParser) -> None:
    what = {
        "params": "parameters, batch norm's statistics included",
        "macs": "multiply-accumulates per image",
        "activations": "activations per image",
        "size": "bytes of the model file",
    }
    for name, limited in what.items():
        parser.add_argument(f"--max-{name}", type=amount, metavar="N", help=f"{limited}; for example 3.1M or 800k")
    parser.add_argument("--max-latency", type=amount, metavar="MS", help="milliseconds per batch")
    parser.add_argument("--machine", metavar="NAME", help="where it was measured (default: the only machine)")


def _pick(options: argparse.Namespace) -> None:
    params = read(options)
    from moonshine.commands.pick import Budget, pick

    limits = {"parameters": options.max_params, "macs": options.max_macs, "activations": options.max_activations}
    counts = {name: limit for name, limit in limits.items() if limit is not None}
    pick(params, Budget(counts, options.max_latency, options.max_size, options.machine), costs_of(params))


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a row, such as train/resnet34, or the path of a model")


def _lineage(options: argparse.Namespace) -> None:
    params = read(options)
    from moonshine.engines.lineage import lineage

    lineage(params, options.target)


def _verify(options: argparse.Namespace) -> None:
    params = read(options)
    from moonshine.engines.verify import verify

    verify(params)


COMMANDS = (
    Command(
        "check",
        "check params.yaml before any work",
        _check,
        ("moonshine check", "moonshine check --params experiments/cifar10.yaml"),
        _keys,
    ),
    Command(
        "describe",
        "parameters and MACs of networks, without data",
        _describe,
        ("moonshine describe", "moonshine describe resnet34-sep", "moonshine describe --arch resnet50 --conv 'G(N)'"),
        _network,
    ),
    Command(
        "status",
        "how far the experiment is",
        _status,
        ("moonshine status", "moonshine status --watch 10"),
        _how_to_show,
    ),
    Command("show", "print the results page", _show, ("moonshine show",)),
    Command(
        "pick",
        "the best networks within a budget of parameters, computation or time",
        _pick,
        ("moonshine pick --max-params 3.1M", "moonshine pick --max-latency 20 --machine amd-epyc"),
        _budget,
        "Rows of the results that have run, by top-1 error, each compared with the teacher.",
    ),
    Command(
        "summary",
        "what changed in the results, as Markdown for a pull request",
        _summary,
        ("moonshine summary", "moonshine summary --against main"),
        _revision,
        needs_project=True,
    ),
    Command(
        "lineage",
        "trace a number in a table back to the raw data and check each link",
        _lineage,
        ("moonshine lineage distil/at/resnet34-sep",),
        _target,
    ),
    Command(
        "verify",
        "hash data, models and results again and compare with what is recorded",
        _verify,
        ("moonshine verify",),
        needs_project=True,
    ),
)
