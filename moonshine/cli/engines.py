"""Commands that keep Snakemake and DVC in step with each other and with what was made."""

import argparse
from pathlib import Path

from moonshine.cli.command import Command, add_seed, read, require_own_folders, require_params_of_engines, require_row
from moonshine.errors import ParamsError


def _sync(options: argparse.Namespace) -> None:
    require_params_of_engines(options)
    require_own_folders()
    from moonshine.engines.sync import sync

    sync()


def _stages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help="such as train@digits-resnet34-0 (default: all that it lacks)"
    )


def _record(options: argparse.Namespace) -> None:
    require_params_of_engines(options)
    require_own_folders()
    from moonshine.engines.record import record

    record(options.stages)


def _edited_stages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stages", nargs="+", metavar="STAGE", help="such as train@digits-resnet34-0, or train for all")
    parser.add_argument(
        "--unproven", action="store_true", help="also accept code changes that cannot be proven harmless"
    )


def _accept(options: argparse.Namespace) -> None:
    require_params_of_engines(options)
    from moonshine.engines.accept import accept

    accept(options.stages, options.unproven)


def _older_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="train/NETWORK or distil/METHOD/NETWORK")
    add_seed(parser)
    parser.add_argument(
        "--run", dest="older", metavar="NAME", help="how the older run's name begins, if there are several"
    )


def _adopt(options: argparse.Namespace) -> None:
    params = read(options)
    row = require_row(params, options.row, options.seed)
    from moonshine.commands.adopt import adopt

    adopt(params, row, options.seed, options.older)


def _unlock(options: argparse.Namespace) -> None:
    from moonshine.engines.unlock import unlock

    unlock()


def _versions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "versions",
        nargs="*",
        type=Path,
        metavar="VERSION",
        help="base, ours and theirs (default: remove from dvc.lock what the last merge has mixed)",
    )


def _merge_lock(options: argparse.Namespace) -> None:
    from moonshine.engines.merge_lock import leave_out_what_was_mixed, merge_lock

    if not options.versions:
        leave_out_what_was_mixed()
    elif len(options.versions) == 3:
        merge_lock(*options.versions)
    else:
        raise ParamsError("merge-lock takes three versions, base, ours and theirs, or none")


COMMANDS = (
    Command(
        "sync",
        "update Snakemake's state from dvc.lock, after dvc pull, checkout or repro",
        _sync,
        ("moonshine sync",),
        needs_project=True,
    ),
    Command(
        "record",
        "record in dvc.lock what stages have made",
        _record,
        ("moonshine record", "moonshine record train@digits-resnet34-0"),
        _stages,
        "Snakemake does this by itself at the end of a run.",
        needs_project=True,
    ),
    Command(
        "accept",
        "record a code change that changes no result",
        _accept,
        ("moonshine accept train distil evaluate", "moonshine accept report@digits --unproven"),
        _edited_stages,
        "Comments, docstrings and layout are proven harmless by comparing the syntax trees.",
        needs_project=True,
    ),
    Command(
        "adopt",
        "resume a run that older code or libraries started",
        _adopt,
        ("moonshine adopt train/resnet34 --seed 0",),
        _older_run,
    ),
    Command(
        "unlock", "remove the locks that killed engines left behind", _unlock, ("moonshine unlock",), needs_project=True
    ),
    Command(
        "merge-lock",
        "merge two versions of dvc.lock stage by stage, for git",
        _merge_lock,
        ("moonshine merge-lock base ours theirs",),
        _versions,
        "`make hooks` sets it up as git's merge driver.",
    ),
)
