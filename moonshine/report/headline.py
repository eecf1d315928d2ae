"""An experiment in one line: the teacher, and one student without and with it."""

from typing import Any

from moonshine.params import Params
from moonshine.project.rows import parse_model
from moonshine.report.rows import ResultRow

ROLE_TITLES = {"teacher": "Teacher", "scratch": "Student from scratch", "distilled": "Student distilled"}


def headline(params: Params, rows: dict[str, ResultRow]) -> dict[str, dict[str, Any]]:
    """For each role its title, error, deviation, parameters and MACs; unknown values are None."""
    return {role: _summary(rows, parse_model(model)[0].name) for role, model in params.shown_models.items()}


def _summary(rows: dict[str, ResultRow], name: str) -> dict[str, Any]:
    row = rows.get(name)
    if row is None:  # the teacher of another experiment
        return {"row": name, "title": name, "top1": None, "top1_std": None, "parameters": None, "macs": None}
    deviation = row.deviation("top1") if row.metrics else None
    return {
        "row": name,
        "title": row.title,
        "top1": round(row.mean("top1"), 6) if row.metrics else None,
        "top1_std": None if deviation is None else round(deviation, 6),
        "parameters": row.costs["parameters"],
        "macs": row.costs["macs"],
    }
