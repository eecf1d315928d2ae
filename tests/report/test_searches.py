"""Searches on the results page: what they found, and how well potentials predict errors."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks.separate_project import write_params
from moonshine import cli
from moonshine.params import read_params
from moonshine.report.searches import FEWEST, RankCorrelation
from moonshine.runtime import signals
from tests.report.test_figures import drawn_marks, read_measured
from tests.support.measured_project import measured_params, row_metrics, write_metrics, write_project
from tests.support.small_search import SEARCH

ARCH = {key: SEARCH[key] for key in ("arch", "stem", "channels")}
CONVS = [["S"] * number + ["G(N)"] * (8 - number) for number in range(7)]
POTENTIALS = [0.5, 0.25, 0.9, 0.1, 0.7, 0.3, 0.6]
ERRORS = [6.0, 7.0, 2.0, 9.0, 5.0, 8.0, 4.0]
BEST = {**SEARCH, "candidates": len(CONVS)}
RANDOM = {**SEARCH, "criterion": "random", "candidates": 1}


def write_search(project: Path, name: str, settings: dict[str, Any], potentials: list[float]) -> Path:
    """As `moonshine search` writes it for the project's params, with the first network found."""
    params = read_params(project / "params.yaml")
    recipe = {"augmentation": params.recipe.augmentation.model_dump(), "threads": params.recipe.threads}
    made_for = {"search": settings, "network": params.search_architecture(name), "recipe": recipe}
    made_for["dataset"] = {"sha256": 64 * "0"}
    keys = ["candidate", *(["potential"] if potentials else []), "parameters", "macs", "activations", "convs"]
    rows = [
        [number, *potentials[number : number + 1], 4000, 50_000, 900, " ".join(CONVS[number])]
        for number in range(len(potentials) or 1)
    ]
    found = {**dict(zip(keys, rows[0])), "convs": CONVS[0]}
    path = project / f"results/toy/search/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**made_for, **found, "draws": 1234, "columns": keys, "candidates": rows}))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search by potential, whose seven candidates were trained, and one at random; commands run in this process."""
    write_project(tmp_path)
    params = measured_params()
    params["search"] = {"best": BEST, "chance": RANDOM}
    for number, convs in enumerate(CONVS):
        name = f"candidate-{number}"
        params["networks"][name] = {**ARCH, "convs": convs, "found_by": "best", "candidate": number}
        params["train"].append(name)
        params["titles"][f"train/{name}"] = f"Candidate {number}"
        row = f"train/{name}"
        costs = {"parameters": 4100, "learnable": 4000, "macs": 50_000, "model_bytes": 16_000}
        errors = {str(seed): ERRORS[number] + 0.1 * seed for seed in (0, 1, 2)}
        write_metrics(tmp_path, row, {**row_metrics("train/student", errors), **costs, "row": row})
        for seed in (0, 1, 2):
            path = tmp_path / f"results/toy/curves/{row}/seed{seed}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("epoch,lr,train_top1,val_top1\n1,0.1,60,50\n2,0.1,30,25\n")
    write_params(tmp_path, params)
    write_search(tmp_path, "best", BEST, POTENTIALS)
    write_search(tmp_path, "chance", RANDOM, [])
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take seconds each time."""
    monkeypatch.setattr("moonshine.stages.report.figure_files", lambda measured: {})


@pytest.mark.usefixtures("without_figures")
def test_the_pages_say_what_was_searched_and_found(project: Path) -> None:
    assert cli.main(["report"]) == 0
    page = (project / "results/toy/README.md").read_text()
    section = page.split("## Searches\n")[1].split("## ")[0]
    assert "Convolutions of the 8 residual blocks, from the image to the classifier" in section
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    budget, convs, costs = "4,000 parameters ± 10 %", " ".join(CONVS[0]), ["4,000", "50,000"]
    assert lines[2:] == [
        ["best", "Fisher potential", budget, "7 of 1,234 drawn", convs, "0", "0.5", *costs],
        ["chance", "the first drawn", budget, "1 of 1,234 drawn", convs, "0", "", *costs],
    ]
    html = (project / "results/toy/report.html").read_text()
    assert '<h2 id="searches">Searches</h2>' in html
    assert "<td>7 of 1,234 drawn</td>" in html


@pytest.mark.usefixtures("without_figures")
def test_a_page_without_searches_has_no_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path)
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report"]) == 0
    assert "Searches" not in (tmp_path / "results/toy/README.md").read_text()
    assert "Searches" not in (tmp_path / "results/toy/report.html").read_text()


def test_potentials_are_correlated_with_the_errors_of_trained_candidates(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["report"]) == 0
    page = (project / "results/toy/README.md").read_text()
    expected = stats.spearmanr(POTENTIALS, ERRORS).statistic
    correlation = RankCorrelation.of(POTENTIALS, ERRORS)
    assert correlation is not None
    assert correlation.coefficient == pytest.approx(expected)
    figure = page.split("## Error against potential\n")[1].split("## ")[0]
    assert f"from scratch, 7 networks: {correlation}." in figure
    assert (project / "results/toy/figures/error-against-potential.svg").exists()
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-potential")
    assert len([item for kind, item in drawn if kind == "symbol"]) == 7, "neither the teacher nor the student"
    assert not [item for kind, item in drawn if kind == "line"], "a potential is no cost, so there is no Pareto front"


@pytest.mark.usefixtures("without_figures")
def test_fewer_networks_than_a_correlation_takes_are_not_drawn(project: Path) -> None:
    params = measured_params()
    params["search"] = {"best": {**SEARCH, "candidates": FEWEST - 1}}
    for number in range(FEWEST - 1):
        params["networks"][f"candidate-{number}"] = {**ARCH, "convs": CONVS[number], "found_by": "best"}
        params["train"].append(f"candidate-{number}")
        params["titles"][f"train/candidate-{number}"] = f"Candidate {number}"
    write_params(project, params)
    write_search(project, "best", params["search"]["best"], POTENTIALS[: FEWEST - 1])
    assert cli.main(["report"]) == 0
    assert "## Error against potential" not in (project / "results/toy/README.md").read_text()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("case", ["missing", "damaged", "of another kind"])
def test_a_search_without_its_file_is_one_line(case: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "results/toy/search/best.json"
    content = json.loads(path.read_text())
    if case == "missing":
        path.unlink()
    elif case == "damaged":
        path.write_text(path.read_text()[:100])
    else:
        path.write_text(json.dumps({**content, "candidates": [[0]]}))
    assert cli.main(["report"]) == 3
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: results/toy/search/best.json: {'missing' if case == 'missing' else 'damaged'}")
    assert error.endswith("; run `moonshine search best`")
    assert "\n" not in error
    assert not (project / "results/toy/README.md").exists()
    if case == "missing":
        assert cli.main(["report", "--partial"]) == 0


@pytest.mark.parametrize("number", [5, 20, 100])
@pytest.mark.parametrize("tied", [False, True])
def test_the_coefficient_is_spearmans(number: int, tied: bool) -> None:
    numbers = random.Random(number)
    x = [numbers.gauss(0, 1) for _ in range(number)]
    y = [round(each + numbers.gauss(0, 2), 0 if tied else 9) for each in x]
    correlation = RankCorrelation.of(x, y)
    assert correlation is not None
    assert correlation.networks == number
    assert correlation.coefficient == pytest.approx(stats.spearmanr(x, y).statistic)
    assert -1 < correlation.low < correlation.coefficient < correlation.high < 1


def test_the_interval_is_that_of_bonett_and_wright() -> None:
    """r = 0.5 over five: z = 0.549306, variance 1.125 / 2, so z ± 1.959964 * 0.75."""
    correlation = RankCorrelation.of([1, 2, 3, 4, 5], [2, 1, 5, 4, 3])
    assert correlation is not None
    assert correlation.coefficient == pytest.approx(0.5)
    assert correlation.low == pytest.approx(math.tanh(0.549306 - 1.469973), abs=1e-6)
    assert correlation.high == pytest.approx(math.tanh(0.549306 + 1.469973), abs=1e-6)
    assert str(correlation) == "0.50 (95 % interval −0.73 to 0.97)"


def test_the_interval_covers_the_coefficient_of_the_population_as_often_as_it_says() -> None:
    """Of normal pairs with Pearson's correlation -0.6, whose Spearman coefficient is 6/pi asin(-0.3)."""
    numbers, covered, samples = random.Random(0), 0, 1000
    population = 6 / math.pi * math.asin(-0.3)
    for _ in range(samples):
        x = [numbers.gauss(0, 1) for _ in range(20)]
        y = [-0.6 * each + 0.8 * numbers.gauss(0, 1) for each in x]
        correlation = RankCorrelation.of(x, y)
        assert correlation is not None
        covered += correlation.low <= population <= correlation.high
    assert 0.92 < covered / samples < 0.98


def test_equal_errors_have_no_correlation() -> None:
    assert RankCorrelation.of([1, 2, 3, 4, 5], [7, 7, 7, 7, 7]) is None
    assert RankCorrelation.of([1, 2, 3, 4], [1, 2, 3, 4]) is None
