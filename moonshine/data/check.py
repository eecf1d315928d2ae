"""What params.yaml says of the images, held against the prepared data as soon as they are there."""

from typing import Any

from moonshine import artefacts
from moonshine.data.store import read_manifest
from moonshine.errors import DataError, ParamsError
from moonshine.params import Params


def check_images(params: Params) -> None:
    """ParamsError (exit code 2) for attention_maps.images that do not exist; nothing where no data are prepared."""
    if manifest := _manifest(params):
        _require_positions(params, manifest)


def check_data(params: Params) -> None:
    """As `check_images`, and DataError (exit code 3) where the data were prepared for other params.

    The engines prepare them again by themselves, single commands do not.
    """
    if manifest := _manifest(params):
        _require_as_params_say(params, manifest)
        _require_positions(params, manifest)


def _manifest(params: Params) -> dict[str, Any] | None:
    prepared = artefacts.manifest(params.dataset.name).exists()
    return read_manifest(artefacts.data_folder(params.dataset.name)) if prepared else None


def _require_positions(params: Params, manifest: dict[str, Any]) -> None:
    count = manifest["splits"]["val"]["count"]
    if (last := max(params.attention_maps.images)) >= count:
        raise ParamsError(f"attention_maps.images: {last}, but the last validation image is {count - 1}")


def _require_as_params_say(params: Params, manifest: dict[str, Any]) -> None:
    settings, folder = params.dataset, artefacts.data_folder(params.dataset.name)
    channels, size, _ = manifest["shape"]
    evaluation = settings.evaluation.model_dump() if settings.evaluation else None
    for key, now, prepared in (
        ("classes", settings.classes, len(manifest["classes"])),
        ("channels", settings.channels, channels),
        ("size", settings.size, size),
        ("evaluation", evaluation, manifest.get("evaluation")),
    ):
        if now != prepared:
            raise DataError(f"{folder}: prepared with dataset.{key} {prepared}, not {now}; run `moonshine prepare`")
