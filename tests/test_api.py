"""The Python interface: any network, any data loader, nothing of the pipeline."""

import copy
import gc
import io
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import densenet121, resnet18, swin_t, vgg11

import moonshine
from moonshine.models.attention_layers import attention_layers, attention_layers_of
from moonshine.models.convolutions import substitute
from moonshine.models.names import TORCHVISION
from moonshine.models.networks import build_network
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=10)


@pytest.fixture
def student(teacher: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return moonshine.cheapen(teacher, "G(N)")


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(8, 3, 64, 64), torch.arange(8)


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_every_public_name_is_there() -> None:
    assert set(moonshine.__all__) <= set(dir(moonshine))
    assert all(getattr(moonshine, name) is not None for name in moonshine.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        _ = moonshine.distil


FIRST_USE = """
import logging, sys, warnings
import moonshine
assert not {"torch", "pandas", "pydantic", "matplotlib"} & sys.modules.keys(), "import moonshine takes no time"
import torch
from torchvision.models import resnet18
before = (warnings.filters[:], logging.root.handlers[:], torch.get_num_threads(), torch.random.get_rng_state())
for name in moonshine.__all__:
    getattr(moonshine, name)
teacher = resnet18(num_classes=3)
torch.random.set_rng_state(before[3])
moonshine.cost(teacher, (3, 64, 64))
distiller = moonshine.Distiller(teacher, teacher, beta=1)
distiller(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1]))
assert warnings.filters == before[0]
assert logging.root.handlers == before[1]
assert torch.get_num_threads() == before[2]
assert torch.equal(torch.random.get_rng_state(), before[3])
assert sys.modules.get("triton", True) is not None
of_the_pipeline = {"altair", "dvc", "matplotlib", "pandas", "pyarrow", "requests", "scipy", "sklearn", "yaml"}
assert not of_the_pipeline & sys.modules.keys(), "they need not be installed"
"""


def test_it_prints_nothing_and_leaves_the_process_as_it_is() -> None:
    result = subprocess.run([sys.executable, "-c", FIRST_USE], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_cheapen_makes_a_copy_that_keeps_what_it_does_not_replace(teacher: nn.Module) -> None:
    before = copy.deepcopy(teacher.state_dict())
    student = moonshine.cheapen(teacher, "G(N)")
    assert type(student) is type(teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    kept = [name for name in student.state_dict() if name in before]
    assert all(torch.equal(before[name], student.state_dict()[name]) for name in kept)
    replaced = before.keys() - student.state_dict().keys()
    assert len(replaced) == 16
    assert all(f"{name.removesuffix('.weight')}.spatial.weight" in student.state_dict() for name in replaced)


@pytest.mark.parametrize("conv", moonshine.list_convolutions())
def test_every_listed_convolution_can_be_used(conv: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    student = moonshine.cheapen(resnet18(num_classes=10), conv)
    assert student(batch[0]).shape == (8, 10)


def test_a_cheap_network_has_the_device_dtype_and_mode_of_the_original() -> None:
    student = moonshine.cheapen(resnet18().eval().double(), "B(2)")
    assert {tensor.dtype for tensor in student.parameters()} == {torch.float64}
    assert not any(module.training for module in student.modules())
    on_meta = moonshine.cheapen(resnet18().to("meta"), "B(2)")
    assert {tensor.device.type for tensor in on_meta.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("network", "conv", "message"),
    [
        (resnet18, "G[n]", r'conv: unknown convolution "G\[n\]" .*did you mean "G\(N\)"'),
        (resnet18, "G(5)", r"layer layer1.0.conv1: G\(5\): 64 channels"),
        (lambda: nn.Linear(2, 2), "G(N)", r"no convolution to replace \(there are none\)"),
        (
            lambda: moonshine.cheapen(resnet18(), "G(N)"),
            "G(N)",
            r"to replace \(.*layer4.1.conv2.pointwise: 1x1 kernel\)",
        ),
    ],
)
def test_what_cannot_be_cheapened_is_refused(network, conv: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        moonshine.cheapen(network(), conv)


def test_cost_needs_no_weights_and_changes_nothing(teacher: nn.Module) -> None:
    before = copy.deepcopy(teacher.state_dict())
    assert moonshine.cost(resnet18(), (3, 224, 224)) == moonshine.Cost(11_699_112, 11_689_512, 1_814_073_344, 2_484_712)
    assert moonshine.cost(teacher.to("cpu"), (3, 64, 64)).macs == 148_050_944
    assert teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


class Centred(nn.Module):
    """With a tensor that is neither a parameter nor a buffer, and casts of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = torch.full((3, 1, 1), 0.5)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers((images - self.centre).float())


def test_cost_of_a_network_that_keeps_a_tensor_of_its_own() -> None:
    assert moonshine.cost(Centred(), (3, 5, 5)) == moonshine.Cost(112, 112, 3 * 4 * 9 * 9, 4 * 9)


def test_frozen_parameters_are_not_trainable() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    layers[0].requires_grad_(False)
    assert moonshine.cost(layers, (3, 1, 1)) == moonshine.Cost(16 + 8 + 8, 8, 12, 4)


def test_cost_of_a_shared_layer_counts_its_parameters_once_and_its_work_twice() -> None:
    layer = nn.Conv2d(4, 4, 1, bias=False)
    assert moonshine.cost(nn.Sequential(layer, layer), (4, 5, 5)) == moonshine.Cost(16, 16, 2 * 16 * 25, 2 * 4 * 25)


FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "mobilenet_v2", "regnet_x_400mf", "resnet50", "shufflenet_v2_x0_5"),
    *("vgg11_bn", "vit_b_16", "wrn-16-1"),
)


@pytest.mark.parametrize(
    "arch",
    [*FAMILIES, *(pytest.param(arch, marks=pytest.mark.slow) for arch in TORCHVISION if arch not in FAMILIES)],
)
def test_the_layers_of_a_network_are_those_of_its_architecture(arch: str) -> None:
    network = build_network({"arch": arch, "classes": 10, "in_channels": 3})
    assert attention_layers(network) == attention_layers_of({"arch": arch})


def test_the_layers_of_a_cheap_network_are_those_of_the_original() -> None:
    for network in (resnet18(), vgg11()):
        expected = attention_layers(network)
        substitute(network, "G(N)")
        assert attention_layers(network) == expected


def test_the_loss_is_the_papers(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Against the same, spelled out with the features read by hand."""
    images, labels = batch
    distiller = moonshine.Distiller(teacher, student, beta=750.0, alpha=0.9, temperature=3.0)
    loss = distiller(images, labels)
    features: dict[tuple[str, str], torch.Tensor] = {}
    reference = copy.deepcopy(teacher).eval()
    for name, network in (("teacher", reference), ("student", student)):
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            hook = lambda module, inputs, output, key=(name, layer): features.update({key: output})  # noqa: E731
            network.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        logits, of_teacher = student(images), reference(images)
    expected = 0.1 * cross_entropy(logits, labels)
    expected += (
        0.9 * 9 * nn.functional.kl_div((logits / 3).log_softmax(1), (of_teacher / 3).softmax(1), reduction="batchmean")
    )
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        maps = [features[name, layer].square().mean(1).flatten(1) for name in ("student", "teacher")]
        ours, theirs = (map_ / map_.norm(dim=1, keepdim=True) for map_ in maps)
        expected += 750 * (ours - theirs).square().mean()
    torch.testing.assert_close(loss, expected)
    assert list(distiller.parts) == ["cross_entropy", "kd", *(f"attention_{i}" for i in (1, 2, 3, 4))]
    assert not any(part.requires_grad for part in distiller.parts.values())
    torch.testing.assert_close(distiller.logits, logits)


def test_the_teacher_is_a_frozen_copy(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    before = copy.deepcopy(teacher.state_dict())
    distiller = moonshine.Distiller(teacher, student, beta=750.0).train()
    distiller(*batch).backward()
    assert teacher.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert len(list(distiller.parameters())) == len(list(student.parameters()))
    assert {name.removeprefix("student.") for name in distiller.state_dict()} == set(student.state_dict())
    assert set(gradients(student)) == {name for name, _ in student.named_parameters()}


def test_under_autocast_the_loss_is_float32(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    distiller = moonshine.Distiller(teacher, student, beta=750.0, alpha=0.9)
    exact = distiller(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distiller(*batch)
        assert distiller.logits.dtype == torch.bfloat16, "the student is in the precision of whoever calls"
    loss.backward()
    assert {part.dtype for part in (loss, *distiller.parts.values())} == {torch.float32}
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0)


def test_losses_of_logits_are_those_of_a_method(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """And the warm-up goes by the epoch that the caller sets."""
    student.eval()
    distiller = moonshine.Distiller(
        teacher,
        student,
        cross_entropy=0.5,
        standardise_logits=True,
        dist={"temperature": 4.0},
        dkd={"alpha": 1.0, "beta": 2.0, "temperature": 3.0, "warmup_epochs": 4},
        ttm={"weight": 5.0, "exponent": 0.3},
    )
    images, labels = batch
    with torch.no_grad():
        s, t = (moonshine.standardise_logits(network(images)) for network in (student, copy.deepcopy(teacher).eval()))
        inter, intra = moonshine.dist_losses(s, t, 4.0)
        target, other = moonshine.dkd_losses(s, t, labels, 3.0)
        ttm = moonshine.ttm_loss(s, t, 0.3)
        expected = {"dist_inter": inter, "dist_intra": intra, "dkd_target": target, "dkd_other": other, "ttm": ttm}
        expected = {"cross_entropy": cross_entropy(student(images), labels), **expected}
    for epoch, share in ((1, 0.25), (4, 1.0)):
        distiller.epoch = epoch
        weights = [0.5, 2.0, 2.0, share, 2 * share, 5.0]
        total = distiller(*batch)
        torch.testing.assert_close(distiller.parts, expected)
        torch.testing.assert_close(total, sum(w * part for w, part in zip(weights, expected.values())))


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["the distiller", "the student"])
def test_compiled_it_is_the_same(
    compiled: str, teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """In float64, for batch norm of few values blows up the rounding of float32."""
    teacher, student, batch = copy.deepcopy(teacher).double(), student.double(), (batch[0].double(), batch[1])
    plain = moonshine.Distiller(teacher, student, beta=750.0, alpha=0.9)
    plain(*batch).backward()
    expected, expected_parts = gradients(student), plain.parts
    student.zero_grad()
    if compiled == "the student":
        distiller = moonshine.Distiller(teacher, torch.compile(student), beta=750.0, alpha=0.9)
    else:
        distiller = torch.compile(plain)
    distiller(*batch).backward()
    torch.testing.assert_close(distiller.parts, expected_parts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients(student), expected, rtol=1e-3, atol=1e-5)


DISTRIBUTED = """
import sys, torch, moonshine
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
teacher = resnet18(num_classes=10).eval()
student = moonshine.cheapen(teacher, "G(N)")
images, labels = torch.randn(8, 3, 64, 64), torch.arange(8)
if sys.argv[1] == "student":
    distiller = moonshine.Distiller(teacher, DistributedDataParallel(student), alpha=0.9, beta=750.0, dist={})
else:
    distiller = DistributedDataParallel(moonshine.Distiller(teacher, student, alpha=0.9, beta=750.0, dist={}))
distiller(images[4 * rank : 4 * rank + 4], labels[4 * rank : 4 * rank + 4]).backward()
shared = [parameter.grad.clone() for parameter in student.parameters()]
student.zero_grad()
moonshine.Distiller(teacher, student, alpha=0.9, beta=750.0, dist={})(images, labels).backward()
for ours, parameter in zip(shared, student.parameters()):
    torch.testing.assert_close(ours, parameter.grad, rtol=1e-3, atol=1e-3)  # of gradients up to 9
dist.destroy_process_group()
"""


@pytest.mark.parametrize("wrapped", ["student", pytest.param("distiller", marks=pytest.mark.slow)])
def test_two_processes_have_the_gradient_of_the_whole_batch(wrapped: str, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(DISTRIBUTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, wrapped]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_layers_can_be_named_for_any_network(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.classifier = nn.Linear(8, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.second(self.first(images).relu()).relu().mean((2, 3)))

    small, large = Small(), densenet121(num_classes=10)
    with pytest.raises(ValueError, match=r"the layers of Small .* its parts are first, second, classifier"):
        moonshine.Distiller(large, small, beta=1.0)
    with pytest.raises(ValueError, match=r"2 layers to compare .* the teacher 4"):
        moonshine.Distiller(large, small, beta=1.0, layers=["first", "second"], teacher_layers=attention_layers(large))
    paths = ["features.denseblock1", "features.denseblock4"]
    distiller = moonshine.Distiller(large, small, beta=[1.0, 2.0], layers=["first", "second"], teacher_layers=paths)
    distiller(*batch).backward()
    assert list(distiller.parts) == ["cross_entropy", "attention_1", "attention_2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to distil"),
        ({"beta": 0.0}, "nothing to distil"),
        ({"beta": [0.0, 0.0, 0.0, 0.0]}, "nothing to distil"),
        ({"alpha": 0.5, "temperature": 0.0}, "temperature: must be greater than 0, found 0.0"),
        ({"alpha": 0.0, "cross_entropy": 0.0}, "cross_entropy: 0, like the weights of all other losses"),
        ({"beta": math.nan}, "beta: must be at least 0, found nan"),
        ({"beta": [1.0, -1.0, 1.0, 1.0]}, "beta: must be at least 0, found -1.0"),
        ({"alpha": 1.5}, "alpha: 1.5 is not between 0 and 1"),
        ({"dist": {"temperature": 0.0}}, "dist.temperature: must be greater than 0, found 0.0"),
        ({"beta": 1.0, "standardise_logits": True}, "standardise_logits: no loss compares logits"),
        ({"dkd": {"alpha": 0.0, "beta": 0.0, "temperature": 1.0}}, "dkd.alpha, dkd.beta: must not all be 0"),
        ({"ttm": {"weight": 1.0, "exponent": -1.0}}, "ttm.exponent: must be greater than 0, found -1.0"),
        ({"beta": 1.0, "form": "square"}, 'form: unknown "square"; must be one of mean-square, norm'),
        ({"beta": [1.0, 2.0]}, "beta: 2 values for 4 groups"),
        ({"beta": []}, "beta: 0 values for 4 groups"),
        ({"beta": 1.0, "layers": []}, "layers: name at least one layer, or leave it out"),
        ({"beta": 1.0, "layers": ["layer4"], "teacher_layers": []}, "teacher_layers: name at least one layer"),
        ({"beta": 1.0, "layers": ["layer9"]}, r'layers: ResNet has no layer "layer9" \(did you mean "layer4"\?\)'),
        ({"beta": 1.0, "layers": ["layer4"], "teacher_layers": ["l"]}, 'teacher_layers: ResNet has no layer "l"'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    teacher: nn.Module, student: nn.Module, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        moonshine.Distiller(teacher, student, **settings)  # type: ignore[arg-type]
    assert not any(module._forward_hooks for module in student.modules())


def test_a_layer_without_maps_is_refused(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    transformer = swin_t(num_classes=10)
    distiller = moonshine.Distiller(transformer, copy.deepcopy(transformer), beta=1.0, layers=["avgpool", "flatten"])
    with pytest.raises(ValueError, match=r"features of shape \(8, 768\): attention needs \(batch, channels, height"):
        distiller(*batch)


def test_networks_of_other_outputs_are_refused(student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = resnet18(num_classes=10)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.inner(images)}

    with pytest.raises(TypeError, match="the teacher returned dict, not logits"):
        moonshine.Distiller(Wrapped(), student, alpha=0.5)(*batch)
    with pytest.raises(TypeError, match="the student returned dict, not logits"):
        moonshine.Distiller(student, Wrapped(), alpha=0.5)(*batch)
    with pytest.raises(ValueError, match="the student has 10 classes, the teacher 7"):
        moonshine.Distiller(resnet18(num_classes=7), student, alpha=0.5)(*batch)

    flat = nn.Sequential(student, nn.Flatten(0))
    with pytest.raises(TypeError, match=r"the teacher returned shape \(80,\), not logits"):
        moonshine.Distiller(flat, student, alpha=0.5)(*batch)


def test_data_parallel_networks_are_refused(teacher: nn.Module, student: nn.Module) -> None:
    with pytest.raises(ValueError, match="DataParallel is not supported; use DistributedDataParallel"):
        moonshine.Distiller(teacher, nn.DataParallel(student), beta=1.0)


def test_the_teacher_gets_the_dtype_of_its_distiller(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    distiller = moonshine.Distiller(teacher, student, beta=750.0, alpha=0.9)
    in_single = distiller(*batch)
    in_double = distiller.double()(batch[0].double(), batch[1])
    torch.testing.assert_close(in_double, in_single, rtol=1e-4, atol=1e-4)
    assert next(teacher.parameters()).dtype == torch.float32, "the original stays as it is"


def test_a_copy_of_a_tapped_network_leaves_the_originals_tap_alone(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    distiller = moonshine.Distiller(teacher, student, beta=750.0)
    other = copy.deepcopy(student)
    expected = distiller(*batch)

    def interfere(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        other(batch[0] * 3 + 1)  # after the student's own pass, before its features are taken

    student.register_forward_hook(interfere)
    assert torch.equal(distiller(*batch), expected)


def test_a_tapped_network_can_be_saved_and_copied_between_any_two_steps(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Also when its features have not been taken: tensors with a history cannot be copied."""
    distiller = moonshine.Distiller(teacher, student, beta=750.0)
    student(batch[0])
    buffer = io.BytesIO()
    torch.save(student, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    student.eval()
    for other in (saved.eval(), copy.deepcopy(student)):
        assert torch.equal(other(batch[0]), student(batch[0]))
    assert distiller(*batch).isfinite()


def test_a_student_forgets_a_distiller_that_is_gone(
    teacher: nn.Module, student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    distiller = moonshine.Distiller(teacher, student, beta=750.0)
    distiller(*batch)
    assert any(module._forward_hooks for module in student.modules())
    del distiller
    gc.collect()
    assert not any(module._forward_hooks for module in student.modules())


def test_an_exported_network_gives_the_same_logits(
    student: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "new folder" / "student.onnx"
    student.train()
    before = copy.deepcopy(student.state_dict())
    difference = moonshine.export_onnx(student, path, batch[0], metadata={"classes": ["a", "b"]})
    assert 0 <= difference < 1e-4
    assert student.training
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    session = onnxruntime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["a", "b"]
    (logits,) = session.run(None, {"images": batch[0][:3].numpy()})
    with torch.inference_mode():
        expected = copy.deepcopy(student).eval()(batch[0][:3])
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-4)


def test_a_network_that_casts_can_be_exported(tmp_path: Path) -> None:
    assert moonshine.export_onnx(Centred(), tmp_path / "centred.onnx", torch.rand(4, 3, 8, 8)) < 1e-4


@pytest.mark.slow
def test_a_compiled_network_is_counted_and_cheapened_as_what_it_compiles() -> None:
    network = resnet18(num_classes=10)
    compiled = torch.compile(network)
    assert moonshine.cost(compiled, (3, 64, 64)) == moonshine.cost(network, (3, 64, 64))
    cheap = moonshine.cheapen(compiled, "G(N)")
    assert moonshine.cost(cheap, (3, 64, 64)) == moonshine.cost(moonshine.cheapen(network, "G(N)"), (3, 64, 64))
    assert cheap(torch.randn(2, 3, 64, 64)).shape == (2, 10)


def test_what_stages_import_is_installed_with_the_pipeline() -> None:
    """Ranges here, exact versions in the lock; what only the tests' own servers need is no requirement."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["export"], *extras["pipeline"]]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in listed}  # type: ignore[index]
    lines = (ROOT / "requirements/runtime.in").read_text().splitlines()
    of_stages = {line.split()[0].partition("=")[0] for line in lines if line[0] != "#" and "<" not in line}
    assert names - {"moonshine", "dvc", "snakemake"} == of_stages
    assert not [requirement for requirement in listed if "==" in requirement]
