"""Figures as files, SVG and PNG, in light and dark: equal figures give equal bytes on every machine."""

import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import matplotlib
import vl_convert

from moonshine.drawing.style import DARK, LIGHT, Theme
from moonshine.report.figures.labels import FONT, FONT_SIZE, lacking
from moonshine.runtime.progress import say_lacking

PIXELS_PER_PIXEL = 2
"""Scale of the PNG, for high-resolution screens."""
TEXT = re.compile(r"<text[^>]*>(.*?)</text>", re.DOTALL)


def config(theme: Theme, font: str = f"{FONT}, Verdana, sans-serif") -> dict[str, Any]:
    """Vega's configuration: the same look for files and web page; only text and background follow the theme."""
    text = {"labelColor": theme.muted, "titleColor": theme.ink, "labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE}
    return {
        "background": theme.paper,
        "font": font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "titleFontWeight": "normal",
            "gridColor": theme.grid,
            "domainColor": theme.muted,
            "tickColor": theme.muted,
            "labelLimit": 0,
        },
        "legend": {
            **text,
            "labelColor": theme.ink,
            "orient": "top",
            "symbolSize": 90,
            "labelLimit": 0,
            "layout": {"top": {"direction": "vertical", "anchor": "start"}},
        },
        "header": {"labelColor": theme.ink, "labelFontSize": FONT_SIZE, "labelLimit": 0},
        "text": {"color": theme.ink, "fontSize": FONT_SIZE},
        "rule": {"color": theme.muted},
    }


@cache
def register_font() -> None:
    """Make the converter use the font files that come with matplotlib, whatever the system has."""
    vl_convert.register_font_directory(str(Path(matplotlib.get_data_path()) / "fonts/ttf"))


def render(name: str, specification: dict[str, Any]) -> dict[str, bytes]:
    """`<name>.svg`, `<name>.png` and dark versions of both."""
    register_font()
    files = {}
    for theme in (LIGHT, DARK):
        svg = vl_convert.vegalite_to_svg(specification, config=config(theme), allowed_base_urls=[])
        files[f"{name}{theme.suffix}.svg"] = svg.encode()
        files[f"{name}{theme.suffix}.png"] = vl_convert.svg_to_png(svg, scale=PIXELS_PER_PIXEL)
    return files


def say_what_font_lacks(files: dict[str, bytes]) -> None:
    """Prints one line with all characters of these SVG files that readers may see as boxes."""
    drawn = (
        unescape(text) for name, svg in files.items() if name.endswith(".svg") for text in TEXT.findall(svg.decode())
    )
    say_lacking({character for text in drawn for character in lacking(re.sub(r"<[^>]*>", "", text))})
