"""The picture that shows what attention transfer does: where each network looks, group by group."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moonshine.drawing.style import Theme, new_figure, render

ROLES = ("teacher", "scratch", "distilled")


@dataclass(frozen=True)
class Example:
    """One image, its maps and their distances to the teacher's."""

    image: np.ndarray
    """float, 0..1, shape (channels, height, width)."""
    label: str
    maps: dict[str, list[np.ndarray]]
    """Role -> the map of each group, shape (height, width), with L2 norm 1."""
    distances: dict[str, list[float]]
    """Role -> the distance for each group, for all roles but the teacher."""


def attention_figure(name: str, examples: list[Example], titles: dict[str, str]) -> dict[str, bytes]:
    """The picture in every format: one row per image and, per group, one column for each role.

    Without examples it says that none are drawn, because the engines need the files either way.
    """
    return render(name, lambda theme: _draw(theme, examples, titles) if examples else _note(theme))


def _note(theme: Theme) -> Figure:
    figure = new_figure(figsize=(6.0, 0.5))
    figure.text(0.01, 0.4, "No images are drawn: attention_maps.images is empty.", fontsize=8, color=theme.muted)
    return figure


def _draw(theme: Theme, examples: list[Example], titles: dict[str, str]) -> Figure:
    groups = len(examples[0].maps["teacher"])
    widths = [1.0] + [0.16, 1.0, 1.0, 1.0] * groups
    figure = new_figure(figsize=(0.86 * sum(widths), 1.12 * len(examples) + 0.75))
    grid = figure.add_gridspec(
        len(examples), len(widths), width_ratios=widths, wspace=0.04, hspace=0.28, left=0.01, right=0.99, bottom=0.09
    )
    grid.update(top=1 - 0.5 / figure.get_figheight(), bottom=0.42 / figure.get_figheight())
    for line, example in enumerate(examples):
        axes = figure.add_subplot(grid[line, 0])
        _show(axes, np.moveaxis(example.image, 0, -1).squeeze(), cmap="gray", top=1.0)
        axes.set_xlabel(example.label, fontsize=7.5, labelpad=2, parse_math=False)
        for group in range(groups):
            brightest = max(float(example.maps[role][group].max()) for role in ROLES)
            for column, role in enumerate(ROLES):
                axes = figure.add_subplot(grid[line, 2 + 4 * group + column])
                _show(axes, example.maps[role][group], cmap="cividis", top=brightest)
                if role != "teacher":
                    axes.set_xlabel(f"{example.distances[role][group]:.3f}", fontsize=7.5, labelpad=2)
                if line == 0:
                    axes.set_title(role, fontsize=8, loc="center", pad=3)
                    if column == 1:
                        axes.annotate(
                            f"group {group + 1}", (0.5, 1.32), xycoords="axes fraction", ha="center", fontsize=9.5
                        )
    names = ", ".join(f"{role}: {titles[role]}" for role in ROLES)
    note = f"{names}. Numbers: distance to the teacher's map."
    figure.text(0.01, 0.012, note, fontsize=8, color=theme.muted, parse_math=False)
    return figure


def _show(axes: Axes, picture: np.ndarray, cmap: str, top: float) -> None:
    axes.imshow(picture, cmap=cmap, vmin=0.0, vmax=top, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
