"""One look for every figure, in a light and a dark theme."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOTS_PER_INCH = 130


@dataclass(frozen=True)
class Theme:
    suffix: str
    """Suffix of its file names."""
    paper: str
    ink: str
    muted: str
    grid: str

    @property
    def settings(self) -> Any:
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.edgecolor": self.muted,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "font.size": 9.5,
            "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
            "legend.frameon": False,
            "svg.hashsalt": "moonshine",
        }


LIGHT = Theme(
    suffix="",
    paper="#ffffff",
    ink="#1f2328",
    muted="#59636e",
    grid="#d8dee4",
)
DARK = Theme(
    suffix="-dark",
    paper="#0d1117",
    ink="#f0f6fc",
    muted="#9aa4af",
    grid="#30363d",
)


def new_figure(**settings: Any) -> Figure:
    """A figure without pyplot: it opens no window and leaves the caller's backend alone."""
    figure = Figure(**settings)
    FigureCanvasAgg(figure)
    return figure


def render(name: str, draw: Callable[[Theme], Figure]) -> dict[str, bytes]:
    """`<name>.svg`, `<name>.png` and dark versions of both; equal drawings give equal bytes."""
    files = {}
    for theme in (LIGHT, DARK):
        with rc_context(theme.settings):
            figure = draw(theme)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once; every format has the same layout
            files[f"{name}{theme.suffix}.svg"] = _saved(figure, format="svg", metadata={"Date": None})
            files[f"{name}{theme.suffix}.png"] = _saved(figure, format="png", metadata={"Software": None})
    return files


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DOTS_PER_INCH, **options)
    return buffer.getvalue()
