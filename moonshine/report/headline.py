"""An experiment in one line: the teacher, and one student without and with it."""

from typing import Any

from moonshine.params import Params
from moonshine.project.rows import Row, parse_model
from moonshine.report.rows import ResultRow

ROLE_TITLES = {"teacher": "Teacher", "scratch": "Student from scratch", "distilled": "Student distilled"}


def headline(params: Params, rows: dict[str, ResultRow]) -> dict[str, dict[str, Any]]:
    """For each role its title, error, deviation, parameters and MACs; unknown values are None."""
    return {role: _summary(params, rows, parse_model(model)[0]) for role, model in params.shown_models.items()}


def _summary(params: Params, rows: dict[str, ResultRow], named: Row) -> dict[str, Any]:
    name = named.name
    row = rows.get(name)
    if row is None:  # a teacher for other classes, which has no error
        unknown = dict.fromkeys(("top1", "top1_std", "parameters", "macs"))
        return {"row": name, "title": params.title(named), **unknown, "other_classes": True}
    deviation = row.deviation("top1") if row.metrics else None
    return {
        "row": name,
        "title": row.title,
        "top1": round(row.mean("top1"), 6) if row.metrics else None,
        "top1_std": None if deviation is None else round(deviation, 6),
        "parameters": row.costs["parameters"],
        "macs": row.costs["macs"],
    }
