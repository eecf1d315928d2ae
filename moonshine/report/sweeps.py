"""Experiments that give one student more and more images, or epochs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from moonshine.params import Params
from moonshine.project.rows import Row, parse_model
from moonshine.runtime.words import counted

FEWEST = 3
"""Points that make a line worth drawing."""
OF_AMOUNT = {"images", "epochs", "lr_steps", "warmup_epochs"}
"""Keys of a recipe that such networks may differ in: those of the schedule follow the number of epochs."""


@dataclass(frozen=True)
class Sweep:
    """Networks that differ only in how many training images or epochs they have."""

    of: Literal["images", "epochs"]
    """What all of them differ in."""
    values: dict[str, int]
    """Network -> its number of them, ascending."""
    others: dict[str, int]
    """Network -> its number of the other one; empty if they do not differ in that."""

    @property
    def in_words(self) -> str:
        """Such as "200, 500 or 900 training images", or "200 images for 60 epochs or 500 images for 24 epochs"."""
        if self.others:
            return " or ".join(
                f"{value:,} images for {counted(self.others[network], 'epoch')}"
                for network, value in self.values.items()
            )
        *most, last = (f"{value:,}" for value in self.values.values())
        return f"{', '.join(most)} or {last} {'training ' if self.of == 'images' else ''}{self.of}"


def find_sweep(params: Params) -> Sweep | None:
    """The first such networks of the experiment, at least `FEWEST`; the teacher's network is not one of them."""
    teacher = parse_model(params.teacher)[0].network
    families: dict[str, list[str]] = {}
    for name, network in params.networks.items():
        if name != teacher:
            families.setdefault(network.model_dump_json(exclude={"recipe"}), []).append(name)
    return next(filter(None, (_sweep(params, names) for names in families.values())), None)


def _sweep(params: Params, networks: list[str]) -> Sweep | None:
    recipes = {name: params.recipe_of(Row("train", name)) for name in networks}
    alike = {recipe.model_dump_json(exclude=OF_AMOUNT) for recipe in recipes.values()}
    images = {name: recipe.images or params.dataset.training or 0 for name, recipe in recipes.items()}
    epochs = {name: recipe.epochs for name, recipe in recipes.items()}
    if len(networks) < FEWEST or len(alike) > 1:
        return None
    if _all_differ(images.values()) and all(images.values()):
        return Sweep("images", _ascending(images), epochs if len(set(epochs.values())) > 1 else {})
    if _all_differ(epochs.values()) and len(set(images.values())) == 1:
        return Sweep("epochs", _ascending(epochs), {})
    return None


def _all_differ(values: Iterable[int]) -> bool:
    known = list(values)
    return len(set(known)) == len(known)


def _ascending(values: dict[str, int]) -> dict[str, int]:
    return dict(sorted(values.items(), key=lambda item: item[1]))
