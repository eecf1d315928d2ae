"""The figures of the results page."""

from io import BytesIO

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from moonshine.report.rows import Row

MARKERS = {"fetch": "D", "train": "o", "distil": "^"}
COLOURS = {"fetch": "#555555", "train": "#0072B2", "distil": "#D55E00"}  # Okabe and Ito's, safe for colour-blind eyes
NAMES = {"fetch": "published", "train": "from scratch", "distil": "distilled"}


def error_against_parameters(rows: dict[str, Row]) -> bytes:
    """SVG of top-1 error (mean, bars of one standard deviation) over the number of parameters."""
    plt.rcParams.update({"svg.hashsalt": "moonshine", "font.size": 10})
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for kind in MARKERS:
        points = [(row.title, row.metrics) for row in rows.values() if row.name.startswith(kind) and row.metrics]
        if not points:
            continue
        axes.errorbar(
            [metrics["parameters"] for _, metrics in points],
            [metrics["top1"]["mean"] for _, metrics in points],
            [metrics["top1"].get("std", 0.0) for _, metrics in points],
            fmt=MARKERS[kind],
            color=COLOURS[kind],
            label=NAMES[kind],
            capsize=3,
        )
        for title, metrics in points:
            at = (metrics["parameters"], metrics["top1"]["mean"])
            axes.annotate(title, at, xytext=(7, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel="parameters, with batch-norm statistics", ylabel="top-1 error, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()
