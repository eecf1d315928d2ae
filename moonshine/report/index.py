"""results/README.md: every experiment with its headline, rewritten with each of them."""

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from moonshine.errors import DataError
from moonshine.report.markdown import escape
from moonshine.report.tables import NOT_RUN, short_count

FILE = "headline.json"
"""In the folder of each experiment: the content of its line in the index."""
OTHER_CLASSES = "other classes"
"""Instead of the error of a teacher that was trained on other classes than its students."""
INTRODUCTION = (
    "The teacher of each experiment and one of its students, trained on labels alone and distilled. Errors are top-1 "
    "errors in per cent, mean ± standard deviation over seeds. Each page has all rows, the figures and what was run."
)


def index_page(results: Path) -> str:
    """The index of the experiments below a folder, as Markdown. Raises DataError for a damaged headline."""
    lines = [_line(path) for path in sorted(results.glob(f"*/{FILE}"))]
    headers = ["Experiment", "Data", "Teacher", "Error", "Student", "Params", "From scratch", "Distilled"]
    alignment = ["left", "left", "left", "right", "left", "right", "right", "right"]
    table = tabulate(lines, headers, "pipe", disable_numparse=True, colalign=alignment)
    return f"# Results\n\n{INTRODUCTION}\n\n{table}\n"


def _line(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text())
        teacher, scratch, distilled = (content["rows"][role] for role in ("teacher", "scratch", "distilled"))
        size = distilled["parameters"]
        return [
            f"[{escape(content['experiment'])}]({path.parent.name}/README.md)",
            escape(content["data"]),
            escape(teacher["title"]),
            _error(teacher),
            escape(distilled["title"]),
            NOT_RUN if size is None else short_count(size),
            _error(scratch),
            _error(distilled),
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); write that experiment's page again") from None


def _error(row: dict[str, Any]) -> str:
    if row["top1"] is None:
        return OTHER_CLASSES if row.get("other_classes") else NOT_RUN
    return f"{row['top1']:.2f}" + ("" if row["top1_std"] is None else f" ± {row['top1_std']:.2f}")
