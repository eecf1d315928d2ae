"""Commands that use a published model."""

import argparse
from pathlib import Path

from moonshine.cli.command import Command, count, read
from moonshine.project import artefacts


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a .safetensors file of models/, or an .onnx file of `moonshine export`",
    )


def _images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a .safetensors file of models/, or an exported .onnx"
    )
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders for all images below them"
    )
    parser.add_argument("--top", type=count, default=5, metavar="N", help="how many classes to show")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line and image, for programs")


def _predict(options: argparse.Namespace) -> None:
    from moonshine.deployment.predict import predict

    predict(options.model, options.images, options.top, options.json)


def _how_to_export(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument(
        "--format", choices=["onnx", "onnx-int8"], default="onnx", help="format of the file (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="output path (default: exports/<model>.onnx, or exports/<model>-int8.onnx)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images to check with, and for onnx-int8 to calibrate with (default: validation images of the data set of "
        "params.yaml, and 256 of its training images)",
    )


def _export(options: argparse.Namespace) -> None:
    elsewhere = options.params == artefacts.PARAMS and not options.params.exists()
    dataset = None if options.images or elsewhere else read(options).dataset.name
    from moonshine.deployment.export import export

    export(options.model, options.output, options.images, dataset, options.format == "onnx-int8")


COMMANDS = (
    Command(
        "predict",
        "the most likely classes of images",
        _predict,
        (
            "moonshine predict models/digits/train/resnet18/seed0.safetensors photo.jpg",
            "moonshine predict models/digits/train/resnet18/seed0.safetensors photos/ --top 1 --json",
        ),
        _images,
        'JSON: {"image": path, "classes": [{"class": name, "probability": 0..1}, ...]}, most likely first.',
    ),
    Command(
        "export",
        "write a model as ONNX, checked against PyTorch",
        _export,
        (
            "moonshine export models/digits/train/resnet18/seed0.safetensors",
            "moonshine export models/digits/train/resnet18/seed0.safetensors --format onnx-int8",
        ),
        _how_to_export,
    ),
)
