"""results/<experiment>/report.html: all results in one file that works offline."""

import base64
import json
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from moonshine.drawing.style import DARK, LIGHT
from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.params.schema import Table
from moonshine.project import artefacts
from moonshine.report.attention import Attention
from moonshine.report.class_errors import CONFUSION_HEADINGS, CONFUSIONS_TITLE, TITLE, ClassErrors
from moonshine.report.figures.catalogue import CONFUSION, FIGURES, drawable
from moonshine.report.figures.encoding import NARROW, WIDE
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import config
from moonshine.report.headline import ROLE_TITLES, headline
from moonshine.report.methods import TITLE as MINIMISED
from moonshine.report.methods import objectives
from moonshine.report.protocol import explanation, notice, protocol, sources
from moonshine.report.rows import ResultRow
from moonshine.report.searches import HEADINGS, SearchResult, caption
from moonshine.report.searches import TITLE as SEARCHES
from moonshine.report.tables import NOT_RUN, int8_notes, measured_notes, short_count, table_columns

VEGA = "window.vegaEmbed = vegaEmbed;"
"""What the page needs from the bundled libraries."""
FONT = "system-ui, sans-serif"


def web_page(params: Params, rows: dict[str, ResultRow], measured: Measured, attention: Attention | None) -> str:
    """The page as HTML; the same metrics and params give the same text."""
    charts = _charts(measured)
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    return template.get_template("page.html").render(
        experiment=params.experiment,
        notice=notice(params, rows),
        protocol=protocol(params, rows),
        explanation=explanation(params, rows),
        cards=_cards(params, rows, measured),
        tables=[_table(table, rows) for table in params.tables],
        searches=_searches(measured.searches) if measured.searches else None,
        figures=[
            {"name": name, "title": FIGURES[name].title, "caption": FIGURES[name].said(measured)}
            for name in charts["figures"]
            if name != CONFUSION
        ],
        classes=_classes(measured, measured.class_errors) if measured.class_errors else None,
        choices={"networks": list(measured.networks.values()), "methods": list(measured.looks)},
        maps=_maps(params, attention) if attention else None,
        recipe=_recipe(params, rows),
        objectives={"title": MINIMISED, "methods": told} if (told := objectives(params)) else None,
        definitions=_definitions(params),
        models=[_model(row) for row in rows.values()],
        vega=vl_convert.javascript_bundle(VEGA) if charts["figures"] else "",
        charts=json.dumps(charts, sort_keys=True).replace("<", "\\u003c"),
    )


def _charts(measured: Measured) -> dict[str, Any]:
    """What the page's script draws: each figure for wide and for narrow windows, which share most data."""
    figures: dict[str, dict[str, Any]] = {}
    datasets: dict[str, str] = {}
    for name in drawable(measured):
        figures[name] = {}
        for window, size in (("wide", WIDE), ("narrow", NARROW)):
            specification = FIGURES[name].specification(measured, size)
            datasets |= specification["datasets"]
            figures[name][window] = {**specification, "datasets": list(specification["datasets"])}
    configs = {name: {**config(theme, FONT), "background": None} for name, theme in (("light", LIGHT), ("dark", DARK))}
    return {"figures": figures, "datasets": datasets, "configs": configs}


def _cards(params: Params, rows: dict[str, ResultRow], measured: Measured) -> list[dict[str, str]]:
    cards = []
    for role, summary in headline(params, rows).items():
        error, of = NOT_RUN, ""
        if summary["top1"] is not None:
            deviation = "" if summary["top1_std"] is None else f" ± {summary['top1_std']:.2f}"
            error = f"{summary['top1']:.2f}{deviation} %"
            of = _of_what(rows[summary["row"]], measured)
        costs = [(summary["parameters"], "parameters"), (summary["macs"], "MACs")]
        cost = ", ".join(f"{short_count(number)} {name}" for number, name in costs if number is not None)
        title = f"{ROLE_TITLES[role]}: top-1 error"
        cards.append({"role": title, "error": error, "of": of, "title": summary["title"], "cost": cost})
    return cards


def _of_what(row: ResultRow, measured: Measured) -> str:
    """Which models the number on a card is for."""
    seeds = list(row.by_seed("top1"))
    if row.kind == "fetch":
        return "published weights"
    if len(seeds) == 1:
        return f"one seed ({seeds[0]})"
    of_all = f"mean ± standard deviation over {len(seeds)} seeds"
    if row == measured.teacher:
        return f"{of_all}; seed {measured.teacher_seed}, which taught: {measured.teacher_error:.2f} %"
    return of_all


def _table(table: Table, rows: dict[str, ResultRow]) -> dict[str, Any]:
    columns = table_columns(table, rows)
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": columns,
        "lines": list(zip(*(column.cells for column in columns))),
        "notes": table.notes,
        "sources": [*sources(table), *int8_notes(table, rows), *measured_notes(table, rows)],
    }


def _classes(measured: Measured, errors: ClassErrors) -> dict[str, Any]:
    figure = FIGURES[CONFUSION]
    return {
        "title": TITLE,
        "caption": errors.caption(),
        "headings": errors.headings,
        "lines": list(errors.lines),
        "last_line": errors.last_line,
        "figure": {"title": figure.title, "caption": figure.said(measured)} if errors.is_drawable else None,
        "confusions": {
            "title": CONFUSIONS_TITLE,
            "caption": errors.confusions_caption(),
            "headings": CONFUSION_HEADINGS,
            "lines": list(errors.frequent_confusions),
        },
    }


def _searches(searches: list[SearchResult]) -> dict[str, Any]:
    lines = [search.line for search in searches]
    return {"title": SEARCHES, "caption": caption(searches), "headings": HEADINGS, "lines": lines}


def _maps(params: Params, attention: Attention) -> dict[str, Any]:
    folder = artefacts.attention_maps(params.experiment)
    return {
        "caption": attention.caption,
        "images": f"{attention.images:,}",
        "groups": range(1, len(attention.distances["distilled"]) + 1),
        "distances": [(attention.titles[role], values) for role, values in attention.distances.items()],
        "light": _embedded(folder / "maps.svg") if attention.has_picture else None,
        "dark": _embedded(folder / "maps-dark.svg") if attention.has_picture else None,
    }


def _embedded(path: Path) -> str:
    try:
        return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run `moonshine attention-maps`") from None


def _recipe(params: Params, rows: dict[str, ResultRow]) -> list[tuple[str, str]]:
    recipe = {f"recipe.{key}": value for key, value in params.recipe.model_dump().items()}
    for place, changes in params.own_recipes.items():
        recipe |= {f"{place}.{key}": value for key, value in changes.items()}
    measured = next((row.metrics for row in rows.values() if row.metrics), None)
    images = {"sha256 of the validation images": measured["dataset"]["sha256"]} if measured else {}
    known = {"data": params.dataset.name, **images, "teacher": params.teacher, "seeds": params.seeds, **recipe}
    return [(key, _plain(value)) for key, value in known.items() if value is not None]


def _definitions(params: Params) -> list[tuple[str, str]]:
    networks = [
        (f"networks.{name}", network.model_dump(exclude={"recipe"}, exclude_none=True))
        for name, network in params.networks.items()
    ]
    methods = list[tuple[str, dict[str, Any]]]()
    for name, method in params.methods.items():
        sections = {key: value for key, value in method.objective.items() if isinstance(value, dict)}
        own = {key: value for key, value in method.objective.items() if key not in sections}
        methods += [(f"methods.{name}", own)] if own else []
        methods += [(f"methods.{name}.{key}", section) for key, section in sections.items()]
    return [(key, _plain(settings)) for key, settings in networks + methods]


def _plain(value: Any) -> str:
    """The value as JSON without quotes and without its own brackets; those of values within it stay."""
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return (text[1:-1] if isinstance(value, dict | list) else text).replace('"', "")


def _model(row: ResultRow) -> dict[str, Any]:
    seeds = row.metrics.get("seeds", {}) if row.metrics else {}
    return {
        "title": row.title,
        "name": row.name,
        "path": f"metrics/{row.name}.json" if row.metrics else None,
        "hashes": [(seed, measured["model_sha256"][:12]) for seed, measured in seeds.items()],
    }
