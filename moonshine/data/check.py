"""What params.yaml says of the images, held against the prepared data as soon as they are there."""

from moonshine import artefacts
from moonshine.data.store import read_manifest
from moonshine.errors import ParamsError
from moonshine.params import Params


def check_images(params: Params) -> None:
    """ParamsError (exit code 2) for attention_maps.images that do not exist; nothing where no data are prepared."""
    if not artefacts.manifest(params.dataset.name).exists():
        return
    count = read_manifest(artefacts.data_folder(params.dataset.name))["splits"]["val"]["count"]
    if (last := max(params.attention_maps.images)) >= count:
        raise ParamsError(f"attention_maps.images: {last}, but the last validation image is {count - 1}")
