"""`moonshine attention-maps`: where the teacher and two students look, on all validation images and drawn for a few."""

import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from moonshine.checks.data import check_images
from moonshine.data.loading import Images, open_images
from moonshine.data.normalisation import Renormalisation
from moonshine.distillation.attention_transfer import attention_map
from moonshine.drawing.attention_figure import ROLES, Example, attention_figure
from moonshine.errors import DataError, ParamsError
from moonshine.evaluation.measure import BATCH_SIZE
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.features import FeatureTap
from moonshine.models.model_file import load_model
from moonshine.models.networks import place
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import parse_model
from moonshine.runtime import signals
from moonshine.runtime.device import choose_device
from moonshine.runtime.files import sha256, write_bytes, write_json
from moonshine.runtime.progress import say, tracked

Maps = list[torch.Tensor]


def attention_maps(params: Params) -> None:
    """Write results/<experiment>/attention-maps/: the picture, and distances.json with what it was made from.

    The distance between two maps of one image is the squared L2 distance of the maps, each scaled to L2 norm 1: 0 if
    both networks look at the same places, at most 2 if they look at different ones.
    """
    settings, device = params.attention_maps, choose_device(params.machine.device, params.machine.trainings_per_gpu)
    make_deterministic(params.recipe.threads)
    data = open_images(artefacts.data_folder(params.dataset.name), "val", device, params.machine.workers)
    check_images(params)
    models = params.shown_models
    probes = {role: AttentionProbe(params.experiment, model, data, device) for role, model in models.items()}
    if len({len(probe.layers) for probe in probes.values()}) > 1:
        raise ParamsError("attention_maps: the networks differ in their number of groups")
    examples, means = _compare(probes, data, settings.images)
    folder = artefacts.attention_maps(params.experiment)
    titles = {role: params.title(probe.row) for role, probe in probes.items()}
    for name, content in attention_figure("maps", examples, titles).items():
        write_bytes(folder / name, content)
    split = {"name": params.dataset.name, "split": "val", "sha256": data.manifest["splits"]["val"]["sha256"]}
    write_json(
        folder / "distances.json",
        {
            "dataset": split,
            "n": len(data),
            "models": {role: {"model": models[role], "sha256": probe.sha256} for role, probe in probes.items()},
            "distance": means,
            "images": [
                {"position": position, "class": example.label, "distance": example.distances}
                for position, example in zip(settings.images, examples)
            ],
        },
    )
    for role, distances in means.items():
        say(f"{titles[role]}: distance to the teacher {', '.join(f'{value:.4f}' for value in distances)}")


class AttentionProbe:
    """A published model whose attention maps are read."""

    def __init__(self, experiment: str, model: str, data: Images, device: torch.device):
        path = artefacts.named_model(experiment, model)
        network, description = load_model(path, model)
        if description["input"] != data.manifest["shape"]:
            raise DataError(f"{path}: made for other images than data/{data.manifest['name']}; make it again")
        self.row, self.sha256 = parse_model(model)[0], sha256(path)
        self.layers = attention_layers_of(description["architecture"])
        own, seen = description["normalisation"], data.manifest["normalisation"]
        self._renormalise = None if own == seen else Renormalisation(seen, own, device)
        self._network = place(network, device)
        self._tap = FeatureTap(self._network, self.layers, attention_map)

    def __call__(self, images: torch.Tensor) -> Maps:
        """The attention map of each group, shape (batch, height, width)."""
        self._network(self._renormalise(images) if self._renormalise else images)
        return self._tap.take()


def _compare(
    probes: dict[str, AttentionProbe], data: Images, chosen: list[int]
) -> tuple[list[Example], dict[str, list[float]]]:
    """The chosen images as examples, and for each student the mean distance of each group over all images."""
    groups = len(probes["teacher"].layers)
    totals = {role: torch.zeros(groups, dtype=torch.float64) for role in ROLES[1:]}
    examples: dict[int, Example] = {}
    first = 0
    batches = tracked(data.evaluation_batches(BATCH_SIZE), "attention maps", -(-len(data) // BATCH_SIZE), "batches")
    with torch.inference_mode():
        for images, labels in batches:
            signals.poll("nothing is lost, run the same command again")
            maps = {role: probe(images) for role, probe in probes.items()}
            distances = {
                role: torch.stack([_distance(*pair) for pair in zip(maps[role], maps["teacher"])]).double().cpu()
                for role in totals
            }
            for role, total in totals.items():
                total += distances[role].sum(dim=1)
            for position in chosen:
                if first <= position < first + len(labels):
                    at = position - first
                    label = data.manifest["classes"][int(labels[at])]
                    examples[position] = _example(images[at], label, at, maps, distances, data)
            first += len(labels)
    means = {role: [round(value, 6) for value in (total / len(data)).tolist()] for role, total in totals.items()}
    return [examples[position] for position in chosen], means


def _distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared L2 distance of the scaled maps of each image, shape (batch,); the larger map is averaged down."""
    size = min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2])
    ours, theirs = (normalize(adaptive_avg_pool2d(map_, size).flatten(1)) for map_ in (student, teacher))
    return (ours - theirs).square().sum(dim=1)


def _example(
    image: torch.Tensor,
    label: str,
    at: int,
    maps: dict[str, Maps],
    distances: dict[str, torch.Tensor],
    data: Images,
) -> Example:
    mean, std = (torch.tensor(data.manifest["normalisation"][key]).view(-1, 1, 1) for key in ("mean", "std"))
    return Example(
        image=(image.cpu() * std + mean).clamp(0, 1).numpy(),
        label=label,
        maps={role: [(m[at] / m[at].norm()).cpu().numpy() for m in of_role] for role, of_role in maps.items()},
        distances={role: [round(value, 6) for value in of_role[:, at].tolist()] for role, of_role in distances.items()},
    )
