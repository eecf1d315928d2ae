"""`python tests/faults/table.py COUNTS PAGE`: write the counts of injected faults into the page."""

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def main(counts: Path, page: Path) -> None:
    lines = ["| Fault | Injected | Survived | Lost steps |", "|---|---:|---:|---:|"]
    for promise, count in sorted(json.loads(counts.read_text()).items()):
        lines.append(f"| {promise} | {count['injected']} | {count['survived']} | {count['lost'] or ''} |")
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
