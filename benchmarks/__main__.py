"""`make bench`: every figure of docs/performance.md as a ratio against a named peer, measured in turns with it."""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import augmentation, loader
from benchmarks.engines import nothing_to_do
from benchmarks.pairs import ROUNDS, Comparison, Worker, compare_calls, compare_workers, timed
from benchmarks.steps import METHODS, RECIPES

THREE = ("resnet18", "resnet34-sep", "resnet18-half")
STEPS = "benchmarks.steps"
LOADER = "benchmarks.loader"
AUGMENTATION = "benchmarks.augmentation"
SEARCH = "benchmarks.search"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peer", default=sys.executable, help="Python with torchdistill installed")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="groups of rows")
    options = parser.parse_args()
    print(f"Convolution peak: {convolution_peak():.0f} GFLOP/s on one thread\n")
    print("| What | Peer | Speed-up, median of pairs (lowest to highest) | Memory |")
    print("|---|---|---|---|")
    for name in options.only:
        ROWS[name](options.peer)


def row(what: str, peer: str, comparison: Comparison) -> None:
    memory = f"{comparison.memory:.2f}" if comparison.memory else ""
    print(f"| {what} | {peer} | {comparison} | {memory} |", flush=True)


def steps(peer: str) -> None:
    for pixels in ("224", "28"):
        _step(peer, pixels, "resnet18", "ours", "")
        _step(peer, pixels, "resnet18", "ours_compiled", ", compiled")
        _step(peer, pixels, "resnet34-sep", "ours", "")


def _step(peer: str, pixels: str, student: str, task: str, how: str) -> None:
    ours = Worker(sys.executable, STEPS, task, pixels, student, threads=1)
    theirs = Worker(peer, STEPS, "torchdistill", pixels, student, threads=1)
    row(f"step, {student}, {pixels} px{how}", "torchdistill 1.1.5", compare_workers(ours, theirs))


def losses(peer: str) -> None:
    for method in METHODS:
        if method != "AT":
            for pixels in ("224", "28"):
                ours, theirs = (
                    Worker(sys.executable, STEPS, "ours_by", pixels, "resnet18", each, threads=1)
                    for each in (method, "AT")
                )
                row(f"step, resnet18, {pixels} px, {method}", "the same by AT", compare_workers(ours, theirs))


def together(peer: str) -> None:
    ours = Worker(sys.executable, STEPS, "ours", "224", *THREE, threads=1)
    apart = Worker(sys.executable, STEPS, "ours_apart", "224", *THREE, threads=1)
    row("three students, one teacher, 224 px", "the same one by one", compare_workers(ours, apart))


def recipes(peer: str) -> None:
    for name in RECIPES:
        ours = Worker(sys.executable, STEPS, "ours_with", "28", "resnet18", name, threads=1)
        usual = Worker(sys.executable, STEPS, "ours", "28", "resnet18", threads=1)
        row(f"step with {name}, resnet18, 28 px", "the same without", compare_workers(ours, usual))


def epochs(peer: str) -> None:
    _epoch(peer, "28", "resnet18", "our_epoch", "")
    _epoch(peer, "28", "resnet18", "our_epoch_compiled", ", compiled")
    _epoch(peer, "28", "resnet34-sep", "our_epoch", "")
    _epoch(peer, "14", "resnet18", "our_epoch", "")
    _epoch(peer, "14", "resnet34-sep", "our_epoch", "")


def _epoch(peer: str, pixels: str, student: str, task: str, how: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = prepared_digits(Path(folder), int(pixels))
        ours = Worker(sys.executable, STEPS, task, pixels, str(data), student, threads=1)
        theirs = Worker(peer, STEPS, "torchdistill_epoch", pixels, str(data), student, threads=1)
        row(f"epoch, {student}, {pixels} px{how}", "torchdistill 1.1.5, PIL", compare_workers(ours, theirs))


def prepared_digits(folder: Path, size: int) -> Path:
    import yaml

    params = yaml.safe_load(Path("params.yaml").read_text())
    params["dataset"]["size"] = size
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    timed([sys.executable, "-m", "moonshine", "prepare"], cwd=folder, env={"PYTHONPATH": str(Path.cwd())})
    return folder / "data" / params["dataset"]["name"]


def start(peer: str) -> None:
    for command, program in (("--help", "pass"), ("check", "import torchvision")):
        ours, bare = [sys.executable, "-m", "moonshine", command], [sys.executable, "-c", program]
        comparison = compare_calls(partial(timed, ours), partial(timed, bare))
        row(f"`moonshine {command}`", f"`python -c '{program}'`", comparison)


def engines(peer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for command, on_bare_graph, comparison in nothing_to_do(Path(folder)):
            row(f"nothing to do, {command}", on_bare_graph, comparison)


def loading(peer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        loader.write_jpeg_images(photographs)
        for resize, what in ((None, "identical pixels"), (256, "images resized at preparation")):
            data = loader.prepare(Path(folder) / f"resize-{resize}", photographs, resize)
            ours = Worker(sys.executable, LOADER, "ours", str(data), threads=1)
            theirs = Worker(sys.executable, LOADER, "image_folder", str(photographs / "train"), threads=1)
            row(f"loading photographs, {what}", "ImageFolder, PIL", compare_workers(ours, theirs))


def augmented(peer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photographs, small = Path(folder) / "photographs", Path(folder) / "small"
        loader.write_jpeg_images(photographs)
        small.mkdir()
        _augmented(prepared_digits(small, 28), "28 px", augmentation.EACH)
        _augmented(loader.prepare(Path(folder) / "jpeg", photographs, None), "JPEG", augmentation.OF_JPEG_IMAGES)


def _augmented(data: Path, what: str, each: dict[str, dict[str, object]]) -> None:
    for name, keys in each.items():
        ours, usual = (
            Worker(sys.executable, AUGMENTATION, "epoch", str(data), json.dumps(chosen), threads=1)
            for chosen in (keys, {})
        )
        row(f"loading, {what}, {name}", "the same without", compare_workers(ours, usual))


def search(peer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = prepared_digits(Path(folder), 12)
        ours, theirs = (Worker(sys.executable, SEARCH, task, str(data), threads=1) for task in ("ours", "as_released"))
        row("candidates of a search, wrn-40-2, 12 px", "each built and run as released", compare_workers(ours, theirs))


def convolution_peak() -> float:
    """GFLOP/s of a 3x3 convolution with 128 channels on 28 x 28 pixels: what convolutions reach here at best."""
    import time

    torch.set_num_threads(1)
    images = torch.randn(32, 128, 28, 28).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    operations = 2 * 32 * 28 * 28 * 128 * 128 * 9
    seconds = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            begin = time.perf_counter()
            layer(images)
            seconds.append(time.perf_counter() - begin)
    return operations / min(seconds) / 1e9


ROWS = {
    "steps": steps,
    "losses": losses,
    "recipes": recipes,
    "together": together,
    "epochs": epochs,
    "start": start,
    "engines": engines,
    "loading": loading,
    "augmentation": augmented,
    "search": search,
}

if __name__ == "__main__":
    main()
