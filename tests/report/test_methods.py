"""What the pages say of losses beyond attention transfer and knowledge distillation, and how they draw them."""

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.separate_project import write_params
from moonshine.params import Params, read_params
from moonshine.project.rows import Row
from moonshine.report.curves import read_curves
from moonshine.report.figures.catalogue import FIGURES, drawable
from moonshine.report.figures.encoding import FILES
from moonshine.report.figures.measured import Measured
from moonshine.report.methods import objectives
from moonshine.report.page import markdown_page
from moonshine.report.rows import read_rows
from moonshine.report.web_page import web_page
from tests.support.all_losses import ALL_LOSSES
from tests.support.measured_project import measured_params, write_project
from tests.support.project import toy_params

KD = {"alpha": 0.9, "temperature": 4.0}


def said(**methods: Any) -> list[tuple[str, str]]:
    params = toy_params()
    params["methods"] = methods
    params["distil"]["methods"] = list(methods)
    return objectives(Params.model_validate(params))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            {"dist": {"beta": 2.0, "gamma": 1.0, "temperature": 1.0}},
            "cross-entropy + DIST (2 × inter + intra) (Huang et al. 2022) at temperature 1",
        ),
        (
            {"dkd": {"alpha": 1.0, "beta": 0.5, "temperature": 1.0, "warmup_epochs": 1}},
            "cross-entropy + DKD (target + 0.5 × other) (Zhao et al. 2022) at temperature 1 after a warm-up of 1 epoch",
        ),
        (
            {"ttm": {"weight": 45.0, "exponent": 0.1, "weighted": True}},
            "cross-entropy + 45 × WTTM (Zheng and Yang 2024) with exponent 0.1",
        ),
        (
            {"alpha": 9.0, "temperature": 2.0, "cross_entropy": 1.0, "standardise_logits": True},
            "cross-entropy + 9 × knowledge distillation (Hinton et al. 2015) at temperature 2 of standardised logits "
            "(Sun et al. 2024)",
        ),
        (
            {**KD, "beta": 750.0, "groups": [1], "ttm": {"weight": 1.0, "exponent": 0.1}},
            "0.1 × cross-entropy + 0.9 × knowledge distillation (Hinton et al. 2015) at temperature 4 + TTM (Zheng and "
            "Yang 2024) with exponent 0.1 + 750 × attention transfer (Zagoruyko and Komodakis 2017)",
        ),
    ],
    ids=["DIST", "DKD", "WTTM", "standardised KD", "several"],
)
def test_a_method_is_told_in_words_with_its_sources(method: dict[str, Any], words: str) -> None:
    assert said(new=method) == [("new", words)]


def test_methods_of_before_are_told_beside_new_ones_alone() -> None:
    at = toy_params()["methods"]["at"]
    assert said(kd=KD, at=at) == []
    told = said(kd=KD, new={"dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0}})
    assert [key for key, _ in told] == ["kd", "new"]
    assert told[0][1].startswith("0.1 × cross-entropy + 0.9 × knowledge distillation (Hinton")


def with_losses(folder: Path, method: dict[str, Any], losses: list[str]) -> tuple[Params, Measured]:
    """A measured project whose distilled row has these losses."""
    project = write_project(folder)
    content = measured_params()
    content["methods"]["at"] |= method
    write_params(project, content)
    for path in (project / "results/toy/curves/distil").rglob("*.csv"):
        header, *lines = path.read_text().splitlines()
        added = [",".join([line, *(str(0.1 * (1 + index)) for index in range(len(losses)))]) for line in lines]
        path.write_text("\n".join([",".join([header, *losses]), *added]) + "\n")
    params = read_params(project / "params.yaml")
    rows = read_rows(params)
    return params, Measured(list(rows.values()), read_curves(params), None, None, [])


def test_the_curves_of_new_losses_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    losses = ["kd", "dist_inter", "dist_intra", "dkd_target", "dkd_other", "ttm"]
    method = {key: ALL_LOSSES[key] for key in ("alpha", "temperature", "cross_entropy", "dist", "dkd", "ttm")}
    params, measured = with_losses(tmp_path, method, losses)
    assert "logit-losses" in drawable(measured)
    specification = FIGURES["logit-losses"].specification(measured, FILES)
    (text,) = specification["datasets"].values()
    frame = pd.read_csv(StringIO(text))
    assert set(zip(frame["part"], frame["mean"].round(6))) == {
        ("KD", 0.1),
        ("DIST, inter", 0.2),
        ("DIST, intra", 0.3),
        ("DKD, target", 0.4),
        ("DKD, other", 0.5),
        ("TTM", 0.6),
    }
    page = web_page(params, read_rows(params), measured, None)
    written = markdown_page(params, read_rows(params), measured, None)
    assert "## What students minimise\n\n| Method   | Objective" in written
    assert "| at       | 0.5 × cross-entropy + 9 × knowledge" in written
    assert "<dt>methods.at.dist</dt><dd><code>beta: 2.0, gamma: 2.0, temperature: 1.0</code></dd>" in page
    assert "DKD (target + 2 × other) (Zhao et al. 2022)" in page


def test_knowledge_distillation_alone_has_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before there were other losses, so that pages in git stay as they are."""
    monkeypatch.chdir(tmp_path)
    _, measured = with_losses(tmp_path, KD, ["kd"])
    assert "attention-losses" in drawable(measured)
    assert "logit-losses" not in drawable(measured)
    assert Row.parse("distil/at/student") in measured.curves
