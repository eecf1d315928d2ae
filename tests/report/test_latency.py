"""Latencies and activations on the results page: columns, captions, the figure, and files that are wrong."""

import csv
import json
from pathlib import Path

import pytest
import vl_convert

from benchmarks.separate_project import write_params
from moonshine import cli
from moonshine.report.figures.catalogue import FIGURES
from moonshine.report.figures.encoding import FILES
from moonshine.runtime import signals
from tests.report.test_figures import drawn_marks, read_measured
from tests.support.latency_files import write_latency
from tests.support.measured_project import TOP1, measured_params, row_metrics, write_metrics, write_project
from tests.support.project import files_below, run_moonshine

COLUMNS = ["top1", "activations", "latency", "speedup", "int8_latency"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a table of latencies; the commands run in this process."""
    write_project(tmp_path)
    params = measured_params()
    params["tables"][0].update(columns=COLUMNS, published=[], compare="train/teacher")
    write_params(tmp_path, params)
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take seconds each time."""
    monkeypatch.setattr("moonshine.stages.report.figure_files", lambda measured: {})
    monkeypatch.setattr("moonshine.stages.report.web_page", lambda *pages: "")


def cells(project: Path, start: str) -> list[str]:
    page = (project / "results/toy/README.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.usefixtures("without_figures")
def test_a_table_that_asks_for_latency_says_that_nobody_has_measured_it(project: Path) -> None:
    assert cli.main(["report"]) == 0
    assert cells(project, "Model")[3:] == ["Activations", "Latency, ms", "Speed-up", "Latency in int8, ms"]
    assert cells(project, "Student")[3:] == ["", "not measured", "not measured", "not measured"]
    assert (project / "results/toy/latency/README.md").exists(), "the folder that DVC depends on"


@pytest.mark.usefixtures("without_figures")
def test_a_measured_network_shows_its_latency_and_how_much_faster_than_the_teacher_it_is(project: Path) -> None:
    write_latency(project, "fast-cpu")
    write_metrics(project, "train/student", row_metrics("train/student", TOP1["train/student"], activations=6_410_984))
    assert cli.main(["report"]) == 0
    assert cells(project, "Student")[3:] == ["", "**4.00**", "**2.50x**", "**5.00**"]
    assert cells(project, "From scratch")[3:] == ["6.41M", "**4.00**", "**2.50x**", "**5.00**"]
    assert cells(project, "Teacher")[3:] == ["", "10.0", "1.00x", "6.00"]
    page = (project / "results/toy/README.md").read_text()
    caption = "Latency on fast-cpu (The fast-cpu), median, 1 thread, batch of 1, onnxruntime 1.2.3."
    assert caption in page
    with (project / "results/toy/tables/all.csv").open() as file:
        line = next(line for line in csv.DictReader(file) if line["row"] == "train/student")
    assert [line[key] for key in COLUMNS[1:]] == ["6410984", "4", "2.5", "5"]


@pytest.mark.usefixtures("without_figures")
def test_each_machine_has_columns_of_its_own(project: Path) -> None:
    for machine in ("old-cpu", "fast-cpu"):
        write_latency(project, machine)
    assert cli.main(["report"]) == 0
    headings = cells(project, "Model")[4:]
    names = [f"{what} ({name})" for what in ("Latency, ms", "Speed-up") for name in ("fast-cpu", "old-cpu")]
    assert headings[:4] == names
    assert cells(project, "Student")[4:] == [
        "**4.00**",
        "**160**",
        "**2.50x**",
        "**1.25x**",
        "**5.00**",
        "not measured",
    ]


@pytest.mark.usefixtures("without_figures")
def test_a_network_that_was_measured_before_it_was_changed_is_not_measured(project: Path) -> None:
    write_latency(project, "fast-cpu")
    params = measured_params()
    params["tables"][0].update(columns=COLUMNS, published=[])
    params["networks"]["student"]["conv"] = "G(2)"
    write_params(project, params)
    assert cli.main(["report"]) == 0
    assert "not measured" in cells(project, "Student")
    assert "10.0" in cells(project, "Teacher")


def test_equal_files_give_equal_pages_with_a_figure(project: Path) -> None:
    for machine in ("old-cpu", "fast-cpu"):
        write_latency(project, machine)
    run_moonshine("report", cwd=project)
    first = files_below(project / "results")
    run_moonshine("report", cwd=project)
    assert files_below(project / "results") == first
    page = (project / "results/toy/README.md").read_text()
    assert "## Error against latency" in page
    for file in ("error-against-latency.svg", "error-against-latency-dark.svg", "error-against-latency.png"):
        assert f"toy/figures/{file}" in first
    assert '"error-against-latency"' in (project / "results/toy/report.html").read_text()


def test_the_figure_shows_the_rows_that_were_measured_and_their_front(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_latency(project, "fast-cpu")
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-latency")
    assert len([item for kind, item in drawn if kind == "symbol"]) == 3
    assert len([item for kind, item in drawn if kind == "line"]) == 2, "the student is faster, the teacher better"
    content = json.loads(path.read_text())
    del content["networks"]["student"]
    path.write_text(json.dumps(content))
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-latency")
    assert len([item for kind, item in drawn if kind == "symbol"]) == 1


def test_fractions_of_a_millisecond_are_written_without_a_prefix(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 150m, as the axes of parameters and MACs would have it."""
    path = write_latency(project, "fast-cpu")
    content = json.loads(path.read_text())
    for network, median in (("teacher", 0.26), ("student", 0.11)):
        content["networks"][network]["timings"][0]["median_ms"] = median
    path.write_text(json.dumps(content))
    specification = FIGURES["error-against-latency"].specification(read_measured(project, monkeypatch), FILES)
    scene = json.dumps(vl_convert.vegalite_to_scenegraph(specification))
    assert '"0.15"' in scene
    assert '"150m"' not in scene


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"format": 2}', "format: Input should be 1"),
        ({"reference": 3}, "reference: Input should be a valid string"),
        ({"machine": "other"}, "is the file of the machine other; rename it to other.json"),
    ],
)
def test_a_file_of_another_format_is_refused_in_one_line(
    content: str | dict[str, object], reason: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_latency(project, "fast-cpu")
    text = content if isinstance(content, str) else json.dumps({**json.loads(path.read_text()), **content})
    path.write_text(text)
    assert cli.main(["report"]) == 3
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: results/toy/latency/fast-cpu.json: ")
    assert reason in error
    assert "\n" not in error
    assert not (project / "results/toy/README.md").exists()
