"""Commands that use a published model."""

import argparse
from pathlib import Path

from moonshine.cli.command import Command, count, read, require_row
from moonshine.errors import ParamsError
from moonshine.project import artefacts
from moonshine.runtime import startup


def _images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a .safetensors file of models/, or an exported .onnx or .xml"
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
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file of models/")
    parser.add_argument(
        "--format",
        choices=["onnx", "onnx-int8", "openvino"],
        default="onnx",
        help="format of the file (default: %(default)s); openvino writes a .xml and a .bin file",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="the feature maps at the ends of the network's stages as outputs, for a detector, in place of the logits",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="output path (default: exports/<model>.onnx, -int8.onnx, .xml, -features.onnx or -features.xml)",
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

    export(options.model, options.output, options.images, dataset, options.format, options.features)


def _how_to_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row of params.yaml (default: all of them)")
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[], metavar="FILE", help="model files, in place of rows or as well"
    )
    parser.add_argument(
        "--blocks",
        nargs="*",
        metavar="SEARCH",
        help="not networks, but each convolution in each block of these searches of params.yaml (default: all of them)",
    )
    parser.add_argument(
        "--machine", metavar="NAME", help="name of the file in results/ (default: the processor, as one word)"
    )
    parser.add_argument("--threads", type=count, nargs="+", default=[1], metavar="N", help="on the CPU (default: 1)")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="images that are run together")
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="turns of each network")
    parser.add_argument("--runs", type=count, default=5, metavar="N", help="timed runs of a network in each turn")
    parser.add_argument("--warm-up", type=count, default=10, metavar="N", help="untimed runs of each network at first")
    parser.add_argument("--int8", action="store_true", help="measure each network in int8 as well")
    parser.add_argument(
        "--backend", choices=["onnxruntime", "eager", "compiled"], default="onnxruntime", help="what runs the networks"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where eager and compiled ones run")


def _measure(options: argparse.Namespace) -> None:
    for row in options.rows:
        if row.endswith(".safetensors"):
            raise ParamsError(f"{row}: a model file, not a row; name it with --model")
    if options.blocks is not None and (options.rows or options.model):
        raise ParamsError("--blocks: measures no networks; leave out rows and --model, or --blocks")
    params = read(options) if options.rows or not options.model else None
    rows = [require_row(params, row) for row in options.rows] if params else []
    startup.leave_out_triton(options.device)
    startup.keep_compiled_code(artefacts.COMPILED)
    from moonshine.deployment.measure import Settings, measure

    settings = Settings(
        backend=options.backend,
        device=options.device,
        threads=sorted(set(options.threads)),
        batch=options.batch,
        rounds=options.rounds,
        runs_per_round=options.runs,
        warm_up=options.warm_up,
        int8=options.int8,
        machine=options.machine,
    )
    if options.blocks is None:
        measure(params, rows, options.model, settings)
        return
    from moonshine.deployment.measure_blocks import measure_blocks

    assert params
    measure_blocks(params, options.blocks, settings)


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
        "write a model as ONNX or for OpenVINO, checked against PyTorch",
        _export,
        (
            "moonshine export models/digits/train/resnet18/seed0.safetensors",
            "moonshine export models/digits/train/resnet18/seed0.safetensors --format onnx-int8",
            "moonshine export models/digits/train/resnet18/seed0.safetensors --features",
        ),
        _how_to_export,
    ),
    Command(
        "measure",
        "measure how long networks take on this machine, and how much memory",
        _measure,
        (
            "moonshine measure",
            "moonshine measure train/resnet34 distil/at/resnet34-sep --threads 1 2 --int8",
            "moonshine measure --model a.safetensors b.safetensors --backend compiled --device cuda",
            "moonshine measure --blocks --machine workstation",
        ),
        _how_to_measure,
        "Networks that are not trained yet are measured untrained. All networks run in turn. The times of all rows are "
        "written to results/<experiment>/latency/<machine>.json, which `moonshine report` reads; those of named rows "
        "only with --machine. --blocks writes results/<experiment>/block-latency/<machine>.json, which searches with a "
        "budget of latency read.",
    ),
)
