"""What params.yaml says about the images, compared with the prepared data once there are any."""

from typing import Any

from moonshine.errors import DataError, ParamsError
from moonshine.images.store import read_manifest
from moonshine.params import Params
from moonshine.params.schema import DATA_FILES, Dataset
from moonshine.project import artefacts
from moonshine.project.records import Manifest

ORIGINS = {
    "digits": "scikit-learn load_digits, digits.csv.gz",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ILSVRC2012",
    "imagenette": "Imagenette",
    "folder": "folder",
}
"""Source -> what its module calls it in the manifest."""
DIGITS_VALIDATION = 360
"""Number of digits held out by default. Their module has it as well, but importing that imports scikit-learn."""
VALIDATION_SHARE = 0.2
"""Share of a folder's images held out by default. Their layouts have it as well, on a floor above."""


def check_images(params: Params) -> None:
    """ParamsError (exit code 2) for images that params.yaml names or counts but that do not exist.

    These are `attention_maps.images`, and `images` of each row's recipe and of what is quantised. Nothing is checked if
    no data are prepared.
    """
    if manifest := _manifest(params.dataset.name):
        _require_positions(params.attention_maps.images, manifest)
        _require_training_images(params, manifest["splits"]["train"]["count"])


def check_data(params: Params) -> None:
    """Like `check_images`, plus DataError (exit code 3) if the data were prepared for other params.

    The engines prepare them again by themselves; single commands do not.
    """
    if problem := data_problem(params):
        raise DataError(f"{artefacts.data_folder(params.dataset.name)}: {problem}; run `moonshine prepare`")
    check_images(params)


def data_problem(params: Params) -> str | None:
    """How the prepared data differ from what params.yaml asks for; None if they do not, or none are prepared.

    Every key of `dataset` that determines bytes is compared. Raises DataError for a damaged manifest.
    """
    if not (manifest := _manifest(params.dataset.name)):
        return None
    asked, prepared = _asked(params.dataset), _prepared(params.dataset, manifest)
    differing = [key for key in asked if asked[key] != prepared[key]]
    return "; ".join(f"prepared with dataset.{key} {prepared[key]}, not {asked[key]}" for key in differing) or None


def _manifest(dataset: str) -> Manifest | None:
    prepared = artefacts.manifest(dataset).exists()
    return read_manifest(artefacts.data_folder(dataset)) if prepared else None


def _require_positions(images: list[int], manifest: Manifest) -> None:
    count = manifest["splits"]["val"]["count"]
    if (last := max(images, default=0)) >= count:
        raise ParamsError(f"attention_maps.images: {last}, but the last validation image is {count - 1}")


def _require_training_images(params: Params, count: int) -> None:
    for row in params.seeded_rows:
        if (asked := params.recipe_of(row).images) and asked > count:
            key = params.recipe_key(row, "images")
            raise ParamsError(f"{key}: {asked:,}, but data/{params.dataset.name} has {count:,} training images")
    for key, sections in (("quantise", params.quantise), ("quantise_fetch", params.quantise_fetch)):
        for name, settings in sections.items():
            if settings.images > count:
                has = f"data/{params.dataset.name} has {count:,} training images"
                raise ParamsError(f"{key}.{name}.images: {settings.images:,}, but {has}")


def _asked(settings: Dataset) -> dict[str, Any]:
    return {
        "source": ORIGINS[settings.source],
        "classes": settings.classes,
        "channels": settings.channels,
        "size": settings.size,
        "evaluation": settings.evaluation.model_dump() if settings.evaluation else None,
        "resize": settings.resize,
        "training": settings.training,
        "validation": (settings.validation or DIGITS_VALIDATION) if settings.source == "digits" else None,
        "validation_share": settings.validation_share,
        "labels": settings.labels,
        "exif_orientation": bool(settings.exif_orientation),
        **{
            f"files.{role}": file.sha256 or file.md5 or file.content_sha256
            for role, file in (settings.files or {}).items()
        },
    }


def _prepared(settings: Dataset, manifest: Manifest) -> dict[str, Any]:
    """The same values, from the manifest. Some sources with a single archive have only its sha256 there."""
    origin, splits = manifest["origin"], manifest["splits"]
    channels, size, _ = manifest["shape"]
    share = origin.get("validation_share")
    by_default = settings.validation_share is None and share == VALIDATION_SHARE
    pins = origin.get("checksums") or origin.get("content_sha256") or {"archive": origin.get("sha256")}
    return {
        "source": origin["source"],
        "classes": len(manifest["classes"]),
        "channels": channels,
        "size": size,
        "evaluation": manifest.get("evaluation"),
        "resize": origin.get("resize"),
        "training": splits["train"]["count"] if "subset" in origin else None,
        "validation": splits["val"]["count"] if origin["source"] == ORIGINS["digits"] else None,
        "validation_share": None if by_default else share,
        "labels": origin.get("labels"),
        "exif_orientation": manifest.get("exif_orientation", False),
        **{f"files.{role}": pins.get(role) for role in DATA_FILES[settings.source]},
    }
