"""Published checkpoints become models of the experiment, or are refused with nothing left behind."""

import hashlib
import io
import json
import pickle
import random
import shutil
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.separate_project import write_params
from moonshine.data.loading import SmallImages
from moonshine.distillation.teacher import Teacher
from moonshine.errors import CheckpointError, DataError, MoonshineError, SecurityError, WriteError
from moonshine.inputs.download import ATTEMPTS, BLOCK, download
from moonshine.inputs.raw import RawFile
from moonshine.models.architecture import architecture_of
from moonshine.models.model_file import load_model, model_bytes, model_description
from moonshine.models.networks import initialise
from moonshine.models.weight_file import read_state
from moonshine.params import read_params
from moonshine.params.schema import DataFile, Network
from moonshine.project.rows import Row
from moonshine.runtime.files import sha256
from moonshine.stages.evaluate import evaluate
from moonshine.stages.fetch import fetch
from tests.support.bad_server import CUT, serving
from tests.support.checkpoints import write_checkpoint
from tests.support.project import run_moonshine, toy_params

CONTENT = random.Random(0).randbytes(250_000)


def get(address: str, target: Path, content: bytes = CONTENT) -> None:
    seconds = 2.0 if "/stall/" in address else 600.0  # others may be slow, but are not to count as gone
    pin = DataFile(name=target.name, sha256=hashlib.sha256(content).hexdigest())
    download(f"{address}/{target.name}", target, lambda part: RawFile(part, pin).check(), seconds)


@pytest.mark.parametrize(
    "script", ["fine", "wordy", "moved", "reset/fine", "busy/fine", "truncate/fine", "stall/truncate/fine"]
)
def test_a_transfer_that_breaks_goes_on_and_ends_whole(script: str, tmp_path: Path) -> None:
    with serving(CONTENT) as (address, handler):
        get(f"{address}/{script}", tmp_path / "name.pth")
    assert (tmp_path / "name.pth").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["name.pth"]
    if "truncate" in script:
        breaks = script.count("/")
        assert handler.ranges[0] is None
        # on a busy machine the last answer may count as stalled, too, and be continued
        received = CUT * breaks if script == "truncate/fine" else len(CONTENT)
        assert CUT * breaks - BLOCK * breaks < int(handler.ranges[-1][6:-1]) <= received


def test_a_server_without_ranges_starts_again(tmp_path: Path) -> None:
    with serving(CONTENT) as (address, _):
        get(f"{address}/truncate/whole", tmp_path / "name.pth")
    assert (tmp_path / "name.pth").read_bytes() == CONTENT


def test_of_several_that_want_one_file_one_downloads_and_the_others_wait(tmp_path: Path) -> None:
    said, waiting = io.StringIO(), "name.pth.lock: another process downloads the same file; waiting for it"
    with serving(CONTENT) as (address, handler), ThreadPoolExecutor() as pool, redirect_stderr(said):
        several = [pool.submit(get, f"{address}/held/fine", tmp_path / "name.pth") for _ in range(3)]
        while said.getvalue().count(waiting) < 2 and not any(one.done() for one in several):
            time.sleep(0.01)
        handler.go_on.set()
        for one in several:
            one.result()
    assert len(handler.ranges) == 2
    assert said.getvalue().count(waiting) == 2
    assert (tmp_path / "name.pth").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["name.pth"]


def test_the_lock_of_a_killed_download_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "name.pth.lock").touch()
    with serving(CONTENT) as (address, _):
        get(f"{address}/fine", tmp_path / "name.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["name.pth"]


def test_what_another_file_left_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "name.pth.part").write_bytes(bytes(70_000))
    with serving(CONTENT) as (address, _):
        get(f"{address}/fine", tmp_path / "name.pth")
    assert (tmp_path / "name.pth").read_bytes() == CONTENT


REFUSED: dict[str, tuple[str, type[MoonshineError], str]] = {
    "an HTML page": ("html", DataError, "sends an HTML page"),
    "not there": ("missing", DataError, "answers 404"),
    "the wrong file": ("other", DataError, "params.yaml pins"),
    "a redirect away": ("away", SecurityError, "redirects to http://127.0.0.2"),
    "always busy": ("busy", WriteError, f"{ATTEMPTS} attempts failed"),
}


@pytest.mark.parametrize(("script", "error", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_the_file_is_refused(
    script: str, error: type[MoonshineError], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moonshine.inputs.download.FIRST_PAUSE", 0.0)
    with serving(CONTENT) as (address, _), pytest.raises(error, match=reason):
        get(f"{address}/{script}", tmp_path / "name.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a model to publish, model.safetensors."""
    folder = tmp_path_factory.mktemp("fetch")
    params = toy_params()
    write_params(folder, params)
    run_moonshine("prepare", cwd=folder)
    architecture = architecture_of(Network(**params["networks"]["teacher"]), 10, 1)
    manifest: dict[str, Any] = {"shape": [1, 12, 12], "encoding": "raw", "normalisation": {}, "classes": []}
    network = initialise(architecture, 0)
    (folder / "model.safetensors").write_bytes(model_bytes(network, model_description("x", architecture, manifest)))
    return folder


def run_fetch(project: Path, url: str, digest: str, check: bool = True, **more: Any) -> Any:
    params = toy_params()
    params["fetch"] = {"teacher": {"url": url, "sha256": digest, **more}}
    write_params(project, params)
    return run_moonshine("fetch", "teacher", cwd=project, check=check)


def fetch_here(project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Publish folder/net.pth in `folder`, in this process."""
    params = toy_params()
    params["fetch"] = {"teacher": {"url": "net.pth", "sha256": sha256(folder / "net.pth"), **more}}
    write_params(folder, params)
    shutil.copytree(project / "data", folder / "data")
    monkeypatch.chdir(folder)
    fetch(read_params(Path("params.yaml")), "teacher")


@pytest.mark.parametrize("of_2017", [False, True], ids=["today's format", "the format of 2017"])
def test_both_formats_are_fetched_and_checked_at_every_use(of_2017: bool, project: Path, tmp_path: Path) -> None:
    digest = write_checkpoint(load_file(project / "model.safetensors"), tmp_path / "net.pth", of_2017)
    with serving((tmp_path / "net.pth").read_bytes()) as (address, handler):
        run_fetch(project, f"{address}/truncate/fine/net.pth?signature={'0' * 400}", digest)
        asked = len(handler.ranges)
        fetched = load_file(project / "models/toy/fetch/teacher.safetensors")
        run_fetch(project, f"{address}/truncate/fine/net.pth", digest)
        assert len(handler.ranges) == asked, "downloaded twice"
        kept = project / "downloads" / f"{digest[:16]}-net.pth"
        kept.write_bytes(kept.read_bytes()[:-1])
        result = run_fetch(project, f"{address}/truncate/fine/net.pth", digest, check=False)
    assert result.returncode == 3
    assert "params.yaml pins" in result.stderr
    published = load_file(project / "model.safetensors")
    assert fetched.keys() == published.keys()
    assert all(torch.equal(fetched[name], published[name]) for name in published)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_those_of_the_network(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.tensor([0.5, -2.0])
    torch.save({"weight": weight.to(dtype), "num_batches_tracked": torch.tensor(7)}, tmp_path / "net.pth")
    state = read_state(tmp_path / "net.pth")
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], weight)
    assert state["num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"\x1f\x8b\x08\0",
        b"<html>",
        b"hello",
        b".",
        b"",
    ],
    ids=["PNG", "JPEG", "gzip", "HTML", "text", "a full stop", "empty"],
)
def test_a_file_that_is_no_checkpoint_is_not_suspected_of_code(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(DataError, match="not a PyTorch checkpoint"):
        read_state(tmp_path / "net.pth")


def test_a_checkpoint_of_another_network_is_named_with_what_differs(project: Path, tmp_path: Path) -> None:
    state = load_file(project / "model.safetensors")
    state["fc.weight"] = torch.zeros(7, 8)
    state["classifier.bias"] = state.pop("fc.bias")
    torch.save(state, tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    result = run_fetch(project, str(tmp_path / "net.pth"), digest, check=False)
    assert result.returncode == 8
    for difference in ("fc.bias is missing", "classifier.bias is not in the network", "fc.weight has shape (7, 8)"):
        assert difference in result.stderr
    assert "Traceback" not in result.stderr


UNFIT: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "integers": (torch.Tensor.int, "is torch.int32, the network computes in floats"),
    "truths": (torch.Tensor.bool, "is torch.bool, the network computes in floats"),
    "complex": (lambda weight: weight.to(torch.complex64), "is torch.complex64, the network computes in floats"),
    "quantised": (
        lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "is sparse, quantised, nested or without values",
    ),
    "sparse": (torch.Tensor.to_sparse, "is sparse, quantised, nested or without values"),
    "without values": (lambda weight: weight.to("meta"), "is sparse, quantised, nested or without values"),
    "not numbers": (lambda weight: weight * torch.nan, "has values that are not finite in torch.float32"),
    "too large": (lambda weight: weight.double() + 1e300, "has values that are not finite in torch.float32"),
    "nested": (lambda weight: torch.nested.nested_tensor([weight]), "is sparse, quantised, nested or without values"),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of kinds of tensors that it means to change
@pytest.mark.parametrize(("change", "reason"), UNFIT.values(), ids=UNFIT)
def test_weights_that_are_no_plain_floats_are_named_and_nothing_is_written(
    change: Callable[[torch.Tensor], torch.Tensor],
    reason: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = load_file(project / "model.safetensors")
    torch.save({**state, "fc.weight": change(state["fc.weight"])}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=rf"net.pth: fc.weight {reason}"):
        fetch_here(project, tmp_path, monkeypatch)
    assert not (tmp_path / "models").exists()


def test_negative_variances_are_refused(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_file(project / "model.safetensors")
    state["bn1.running_var"][0] = -1
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"net.pth: bn1.running_var has negative variances; pin a sound file"):
        fetch_here(project, tmp_path, monkeypatch)
    assert not (tmp_path / "models").exists()


def test_of_a_published_network_that_overflows_another_checkpoint_is_asked_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To train it again, as of others, would be no advice."""
    state = load_file(project / "model.safetensors")
    torch.save({**state, "fc.weight": state["fc.weight"] * 3e38}, tmp_path / "net.pth")
    fetch_here(project, tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"loss on data/digits is not finite; pin a sound checkpoint in fetch.teacher$"):
        evaluate(read_params(Path("params.yaml")), Row.parse("fetch/teacher"))
    assert not (tmp_path / "results").exists()


@pytest.mark.filterwarnings("ignore")  # of what is deprecated
@pytest.mark.parametrize("kind", ["TorchScript", "tar"])
def test_what_could_run_code_is_not_advised_to_be_run(kind: str, tmp_path: Path) -> None:
    """As torch does, which says how to load such files nevertheless."""
    path = tmp_path / "net.pth"
    if kind == "TorchScript":
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    else:
        with tarfile.open(path, "w") as tar:
            for name in ("sys_info", "pickle", "tensors", "storages"):
                tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(CheckpointError, match=r"could run code; .* save its state_dict\(\) with torch.save$") as error:
        read_state(path)
    assert "weights_only" not in str(error.value)


def test_weights_that_share_their_memory_are_published_apart(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(project / "model.safetensors")
    shared = state["layer1.0.bn2.weight"]
    torch.save({**state, "layer1.0.bn1.weight": shared}, tmp_path / "net.pth")
    fetch_here(project, tmp_path, monkeypatch)
    network, _ = load_model(tmp_path / "models/toy/fetch/teacher.safetensors")
    assert torch.equal(network.get_parameter("layer1.0.bn1.weight"), shared)


def test_counters_of_any_type_become_the_networks(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaged checkpoints have floats."""
    state = load_file(project / "model.safetensors")
    torch.save({**state, "bn1.num_batches_tracked": torch.tensor(7.5)}, tmp_path / "net.pth")
    fetch_here(project, tmp_path, monkeypatch)
    published = load_file(tmp_path / "models/toy/fetch/teacher.safetensors")
    assert published["bn1.num_batches_tracked"].dtype == torch.int64


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(project: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    for name, content in (("plain", pickle.dumps(Payload())), ("torch", None)):
        path = tmp_path / f"{name}.pth"
        if content is None:
            torch.save({"fc.weight": Payload()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(SecurityError, match="was not loaded"):
            read_state(path)
    digest = hashlib.sha256((tmp_path / "torch.pth").read_bytes()).hexdigest()
    assert run_fetch(project, str(tmp_path / "torch.pth"), digest, check=False).returncode == 4
    assert not marker.exists()


def test_a_wrapped_checkpoint_gives_the_bytes_of_a_plain_one(project: Path, tmp_path: Path) -> None:
    state, models = load_file(project / "model.safetensors"), []
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 90}
    torch.save(state, tmp_path / "plain.pth")
    torch.save(wrapped, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "net.safetensors")
    for name in ("plain.pth", "wrapped.pth", "net.safetensors"):
        result = run_fetch(project, str(tmp_path / name), sha256(tmp_path / name))
        chosen = f'{tmp_path / name}: took the entry state_dict, not epoch; removed "module." before all names\n'
        assert (chosen in result.stderr) == (name == "wrapped.pth")
        models.append(sha256(project / "models/toy/fetch/teacher.safetensors"))
    assert models == models[:1] * 3


def test_a_checkpoint_for_other_classes_says_so(project: Path, tmp_path: Path) -> None:
    state = {**load_file(project / "model.safetensors"), "fc.weight": torch.zeros(7, 8), "fc.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "net.pth")
    result = run_fetch(project, str(tmp_path / "net.pth"), sha256(tmp_path / "net.pth"), check=False)
    assert result.returncode == 8
    assert result.stderr.count("\n") == 1
    assert "fc.weight is for 7 classes, the network has 10: pin a checkpoint of these classes" in result.stderr


OWN = {"mean": [0.25], "std": [0.5]}


def test_a_published_network_sees_its_own_normalisation(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In evaluation with the arithmetic of any data set's, and as a teacher to within the rounding of an operation."""
    torch.save(load_file(project / "model.safetensors"), tmp_path / "net.pth")
    fetch_here(project, tmp_path, monkeypatch, normalisation=OWN)
    path = Path("models/toy/fetch/teacher.safetensors")
    network, description = load_model(path)
    assert description["normalisation"] == OWN
    evaluate(read_params(Path("params.yaml")), Row.parse("fetch/teacher"))
    measured = json.loads(Path("results/toy/metrics/fetch/teacher.json").read_text())
    data = SmallImages(Path("data/digits"), "val", torch.device("cpu"))
    pixels, labels = data.images, data.labels
    given, own = (
        (pixels - mean * 255) / (std * 255)
        for mean, std in ((torch.tensor(each["mean"]), torch.tensor(each["std"])) for each in (seen(data), OWN))
    )
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(network(own), labels).item()
        assert loss != pytest.approx(torch.nn.functional.cross_entropy(network(given), labels).item(), rel=1e-3)
    assert measured["loss"]["mean"] == pytest.approx(loss, rel=1e-5)
    arguments = (path, "fetch/teacher", torch.device("cpu"), torch.float32)
    shared, alone = (Teacher.load(*arguments, images=each)[0] for each in (seen(data), None))
    torch.testing.assert_close(shared(given).logits, alone(own).logits, rtol=1e-5, atol=1e-5)


def seen(data: SmallImages) -> Any:
    return data.manifest["normalisation"]


def test_another_normalisation_makes_a_fetched_network_outdated(project: Path, tmp_path: Path) -> None:
    torch.save(load_file(project / "model.safetensors"), tmp_path / "net.pth")
    pin = (str(tmp_path / "net.pth"), sha256(tmp_path / "net.pth"))
    run_fetch(project, *pin)
    params = toy_params()
    params["fetch"] = {"teacher": {"url": pin[0], "sha256": pin[1], "normalisation": OWN}}
    write_params(project, params)
    result = run_moonshine("evaluate", "fetch/teacher", cwd=project, check=False)
    assert result.returncode == 3
    assert f"outdated (fetch.normalisation: None -> {OWN}); run `moonshine fetch teacher`" in result.stderr
    run_fetch(project, *pin, normalisation=OWN)
    record = json.loads((project / "models/toy/records/fetch/teacher.json").read_text())
    assert record["normalisation"] == OWN
    run_moonshine("evaluate", "fetch/teacher", cwd=project)


def test_a_normalisation_for_other_images_is_refused(project: Path) -> None:
    wrong = {"mean": [0.5, 0.5, 0.5], "std": [0.2]}
    result = run_fetch(project, "net.pth", "0" * 64, check=False, normalisation=wrong)
    assert result.returncode == 2
    line = "fetch.teacher.normalisation.mean: 3 values, but images of 1 channels"
    assert result.stderr == f"error: params.yaml: {line}\n"
