"""Commands that set up an experiment: one for the user's own images, or one of experiments/."""

import argparse
from pathlib import Path

from moonshine.cli.command import Command, between, count


def _choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the experiment; the file is experiments/NAME.yaml")
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="train/ and val/ with a folder per class, a folder per class without a split, or Parquet shards",
    )
    parser.add_argument("--teacher", required=True, metavar="ARCH", help="torchvision's name, or wrn-DEPTH-WIDTH")
    parser.add_argument(
        "--students",
        nargs="+",
        required=True,
        metavar="STUDENT",
        help="cheap convolutions for the teacher's architecture, such as 'G(N)', or other architectures",
    )
    parser.add_argument("--size", type=count, metavar="PIXELS", help="side that networks see (default: by the images)")
    parser.add_argument("--epochs", type=count, metavar="N", help="passes over the images (default: by their number)")
    parser.add_argument(
        "--labels", metavar="CSV", help="a file in FOLDER with columns path, label and, optionally, split"
    )
    parser.add_argument(
        "--validation-share",
        type=between(0, 1, "between 0 and 1"),
        metavar="SHARE",
        help="what to hold out if there is no split (default: 0.2)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights that the teacher begins with: a file, an https address, or DEFAULT for torchvision's own",
    )
    parser.add_argument("--shared", action="store_true", help="let DVC push the prepared images to remotes")
    parser.add_argument(
        "--show-images", action="store_true", help="draw some validation images in results/, which git tracks"
    )
    parser.add_argument("--no-estimate", action="store_true", help="do not measure how long trainings take")


def _new(options: argparse.Namespace) -> None:
    from moonshine.commands.new.choices import Request
    from moonshine.commands.new.create import new

    request = Request(
        name=options.name,
        folder=options.images.expanduser().absolute(),
        teacher=options.teacher,
        students=options.students,
        labels=options.labels,
        validation_share=options.validation_share,
        size=options.size,
        epochs=options.epochs,
        weights=options.weights,
        is_shared=options.shared,
        shows_images=options.show_images,
    )
    new(request, is_estimated=not options.no_estimate)


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="a file of experiments/ without .yaml")


def _use(options: argparse.Namespace) -> None:
    from moonshine.commands.use import use

    use(options.experiment, options.params)


COMMANDS = (
    Command(
        "new",
        "write an experiment for a folder of your own images",
        _new,
        ("moonshine new flowers --images ~/flowers --teacher resnet34 --students 'G(N)' 'B(2)' --size 224",),
        _choices,
        "It looks at the images, chooses each value by a rule that the file states, and never overwrites a file.",
        is_long=True,
    ),
    Command(
        "use",
        "make an experiment of experiments/ the current one, by copying it to params.yaml",
        _use,
        ("moonshine use imagenet",),
        _experiment,
        details="Keys that its file leaves out are filled in and marked as default.",
    ),
)
