"""What the attention_maps stage measured, for the pages."""

import json
import math
from dataclasses import dataclass

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import parse_model

CAPTION = (
    "Where the teacher, a student trained on labels alone and the same student distilled look: the strength of the "
    "activations after each group of blocks, for {count} fixed validation images. Numbers are distances to the "
    "teacher's map: 0 if both look at the same places, at most 2 if they look at different ones."
)
NO_PICTURE = (
    "How far a student trained on labels alone and the same student distilled are from where the teacher looks, after "
    "each group of blocks: 0 if both look at the same places, at most 2 if they look at different ones. No images are "
    "shown."
)


@dataclass(frozen=True)
class Attention:
    """`distances` are means over all `images` validation images, by student and group."""

    titles: dict[str, str]
    distances: dict[str, list[float]]
    images: int
    caption: str
    has_picture: bool


def read_attention(params: Params, partial: bool = False) -> Attention | None:
    """What is in results/<experiment>/attention-maps, or None if `partial` and it does not exist yet."""
    path = artefacts.attention_maps(params.experiment) / "distances.json"
    if partial and not path.exists():
        return None
    again = "run `moonshine attention-maps`"
    try:
        content = json.loads(path.read_text())
        models = {role: content["models"][role]["model"] for role in ("teacher", "scratch", "distilled")}
        distances = {role: [float(value) for value in content["distance"][role]] for role in ("scratch", "distilled")}
        images, count = int(content["n"]), len(content["images"])
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {again}") from None
    if models != params.shown_models:
        raise DataError(f"{path}: made of other models than params.yaml names; {again}")
    if not all(math.isfinite(value) for of_role in distances.values() for value in of_role):
        raise DataError(f"{path}: a value is not finite; {again}")
    rows = {role: parse_model(model)[0] for role, model in models.items()}
    titles = {role: params.title(row) for role, row in rows.items()}
    return Attention(titles, distances, images, CAPTION.format(count=count) if count else NO_PICTURE, count > 0)
