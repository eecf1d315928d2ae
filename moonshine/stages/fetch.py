"""`moonshine fetch`: a published checkpoint as a model of the experiment."""

from typing import cast

from moonshine.images.store import read_manifest
from moonshine.inputs.pinned import pinned_file
from moonshine.models.architecture import architecture_of
from moonshine.models.model_file import model_bytes, model_description
from moonshine.models.networks import build_network
from moonshine.models.weight_file import read_state, whole_network
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.records import Manifest
from moonshine.project.rows import Row
from moonshine.runtime.files import write_bytes, write_json
from moonshine.runtime.progress import say


def fetch(params: Params, network: str) -> None:
    """Publish a checkpoint, its checksum checked, as models/<experiment>/fetch/<network>.safetensors.

    One of `params.fetch_teacher` is for other classes, whose names are unknown: they are called `class 0` and so on.

    Raises DataError (exit code 3) for a file other than the pinned one, SecurityError (4) for one that holds more than
    tensors, CheckpointError (8) for one that does not fit the network. Nothing is written then.
    """
    checkpoint, row = params.checkpoints[network], Row("fetch", network)
    manifest = read_manifest(artefacts.data_folder(params.dataset.name))
    path = pinned_file(checkpoint, params.machine, params.checkpoint_key(network))
    others = [f"class {number}" for number in range(checkpoint.classes or 0)]
    classes = others or manifest["classes"]
    architecture = architecture_of(params.networks[network], len(classes), manifest["shape"][0])
    state = whole_network(read_state(path), architecture, path)
    built = build_network(architecture)
    built.load_state_dict(state, assign=True)
    pin = checkpoint.model_dump(exclude_none=True)
    seen = {**manifest, "classes": classes, "normalisation": pin.get("normalisation", manifest["normalisation"])}
    content = model_bytes(built, model_description(row.name, architecture, cast(Manifest, seen)))
    write_json(artefacts.record(params.experiment, row), {"row": row.name, **pin, "bytes": path.stat().st_size})
    target = artefacts.model(params.experiment, row)
    write_bytes(target, content)
    say(f"{target}: {len(state)} tensors of {path}, sha256 {checkpoint.sha256[:16]}")
