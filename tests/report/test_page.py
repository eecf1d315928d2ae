"""The results page from metrics of every kind: what it says, and what it refuses."""

import copy
import csv
import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import altair as alt
import pytest
from markdown_it import MarkdownIt

from benchmarks.separate_project import write_params
from moonshine.errors import Interrupted
from moonshine.params import read_params
from moonshine.report.comparison import Comparison, compare
from moonshine.report.figures.catalogue import FIGURES, figure_files
from moonshine.report.figures.encoding import FILES, Size
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import render
from moonshine.report.rows import read_rows
from moonshine.report.tables import short_count
from moonshine.report.web_page import _plain as plain
from moonshine.report.web_page import web_page
from moonshine.runtime import signals
from tests.report.conftest import RunInProcess
from tests.support.measured_project import (
    TOP1,
    VALIDATION,
    measured_params,
    row_metrics,
    write_confusions,
    write_metrics,
    write_project,
)
from tests.support.project import files_below, run_moonshine


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def stop_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", signal.SIGTERM)


def read_page(project: Path) -> str:
    return (project / "results/toy/README.md").read_text()


def table_line(project: Path, title: str) -> list[str]:
    line = next(line for line in read_page(project).splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def csv_line(project: Path, row: str) -> dict[str, str]:
    with (project / "results/toy/tables/all.csv").open() as file:
        return next(line for line in csv.DictReader(file) if line["row"] == row)


def test_a_row_shows_mean_deviation_cost_and_its_differences(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    assert table_line(project, "Student") == [
        "Student",
        "**3.00k**",
        "**12.0kB**",
        "7.00 ± 1.05",
        "−2.00",
        "7.50 (−0.50 ≈)",
        "1.00 ± 0.00",
        "0.00 ≈",
    ]
    assert table_line(project, "Teacher")[3] == "**2.03 ± 0.15**"
    line = csv_line(project, "distil/at/student")
    assert float(line["top1"]) == pytest.approx(7.0)
    assert float(line["top1_minus_scratch"]) == pytest.approx(-2.0)
    # by hand: differences -2, -1.95, -2.05 have deviation 0.05, so t = -2 / (0.05 / sqrt 3) = -69.3 with 2 degrees
    assert float(line["top1_minus_scratch_p"]) == pytest.approx(0.000208, rel=0.01)
    assert "Somebody, 2018, table 1" in read_page(project)


def test_a_table_may_compare_its_rows_with_any_other(project: Path, run_in_process: RunInProcess) -> None:
    params = measured_params()
    params["titles"]["train/teacher"] = "Teacher*"
    other = {**params["tables"][0], "name": "other", "published": [], "rows": ["train/student", "distil/at/student"]}
    params["tables"].append({**other, "compare": "train/teacher"})
    write_params(project, params)
    run_in_process("report", cwd=project)
    page = read_page(project)
    table = page[page.rindex("| Model") :]
    assert table.splitlines()[0].split("|")[5].strip() == "Top-1 − Teacher\\*"
    assert [line.split("|")[5].strip() for line in table.splitlines()[2:4]] == ["+6.97", "+4.97"]
    assert '"− scratch" is the error' in page
    assert '"− Teacher\\*" is the error of a row minus that of Teacher\\*. ' in page
    with (project / "results/toy/tables/other.csv").open() as file:
        lines = list(csv.DictReader(file))
    # by hand: differences 7, 7.8, 6.1 have mean 6.967 and deviation 0.850, so t = 14.19 with 2 degrees
    assert float(lines[0]["top1_minus_compared"]) == pytest.approx(6.9667, abs=1e-3)
    assert float(lines[0]["top1_minus_compared_p"]) == pytest.approx(0.00493, rel=0.01)
    params["tables"] = [{**params["tables"][0], "compare": "distil/at/student", "published": []}]
    write_params(project, params)
    run_in_process("report", cwd=project)
    assert "scratch" not in read_page(project).split("## Reading the differences")[1].split("##")[0]
    assert table_line(project, "Student")[4] == ""


def test_rows_that_begin_with_other_weights_are_named(project: Path, run_in_process: RunInProcess) -> None:
    params = measured_params()
    params["networks"]["teacher"] = {
        **params["networks"]["teacher"],
        "init": {"url": "weights.pth", "sha256": "0" * 64},
        "recipe": {"class_weights": "balanced"},
    }
    write_params(project, params)
    run_in_process("report", cwd=project)
    assert (
        "Trained in another way: Teacher (classes of equal weight). Trained from given weights: Teacher. No. Params"
        in read_page(project)
    )
    assert "Top-1 − labels alone" in table_line(project, "Model")
    assert '"− labels alone" is the error of a distilled network' in read_page(project)


def test_rows_that_are_trained_in_another_way_are_named(project: Path, run_in_process: RunInProcess) -> None:
    params = measured_params()
    params["titles"]["train/teacher"] = "Teacher*"
    params["networks"]["teacher"] = {**params["networks"]["teacher"], "recipe": {"epochs": 1, "lr_steps": []}}
    params["networks"]["student"]["recipe"] = {"lr": 0.02, "weight_decay": 0.0}
    params["methods"]["at"]["recipe"] = {"images": 300, "batch_size": 32}
    write_params(project, params)
    refused = run_in_process("report", cwd=project, fails=True)
    assert "curves/train/teacher/seed0.csv: has 2 epochs, params.yaml 1" in refused.stderr
    for path in project.glob("results/toy/curves/train/teacher/*.csv"):
        path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    run_in_process("report", cwd=project)
    assert (
        "All networks are trained for 2 epochs with batch size 128, weight decay 0.0001 and a learning rate of 0.05, "
        "multiplied by 0.1 after epoch 1. Trained in another way: "
        r"Teacher\* (1 epoch, constant learning rate 0.05); "
        "From scratch (learning rate 0.02, weight decay 0); "
        "Student (300 training images, batch size 32, learning rate 0.02, weight decay 0). No. Params includes"
    ) in read_page(project)
    params["recipe"]["images"] = 300
    write_params(project, params)
    run_in_process("report", cwd=project)
    assert "All networks are trained on 300 training images for 2 epochs" in read_page(project)
    assert "Student (batch size 32, learning rate 0.02" in read_page(project)


def test_a_recipe_is_told_in_words_as_far_as_it_is_set(project: Path, run_in_process: RunInProcess) -> None:
    params = measured_params()
    params["recipe"] |= {
        "schedule": "cosine",
        "lr_steps": [],
        "warmup_epochs": 1,
        "optimizer": "adamw",
        "norm_weight_decay": 0.0,
        "clip_grad_norm": 1.0,
        "label_smoothing": 0.1,
        "ema_decay": 0.999,
        "zero_init_residual": True,
    }
    params["networks"]["student"]["recipe"] = {"schedule": "linear", "lr_min": 0.001, "warmup_epochs": 0}
    off = {"label_smoothing": 0.0, "ema_decay": 0.0, "zero_init_residual": False, "optimizer": "nesterov"}
    params["methods"]["at"]["recipe"] = {**off, "clip_grad_norm": 2.0, "norm_weight_decay": 0.01}
    write_params(project, params)
    run_in_process("report", cwd=project)
    linear = "learning rate 0.05, lowered linearly to 0.001"
    assert (
        "weight decay 0.0001 and a learning rate of 0.05, reached in 1 epoch of linear warm-up and lowered to 0 along "
        "a cosine. Training uses AdamW, weight decay 0 on normalisation layers, gradients clipped to norm 1, label "
        "smoothing 0.1, zero-initialised residual blocks and a moving average of the weights (decay 0.999), which is "
        f"evaluated. Trained in another way: From scratch ({linear}); Student ({linear}, Nesterov momentum, weight "
        "decay 0.01 on normalisation layers, gradients clipped to norm 2, no label smoothing, no zero-initialised "
        "residual blocks, no average of the weights). No. Params includes"
    ) in read_page(project)


def test_augmentation_is_told_in_words(project: Path, run_in_process: RunInProcess) -> None:
    params = measured_params()
    params["recipe"]["augmentation"] |= {"cutout": 4, "random_erasing": 0.1, "mixup": 0.2, "cutmix": 1.0}
    params["networks"]["student"]["recipe"] = {"augmentation": {"flip": True, "trivial_augment": True}}
    params["networks"]["teacher"] = {**params["networks"]["teacher"], "recipe": {"augmentation": {"flip": False}}}
    write_params(project, params)
    run_in_process("report", cwd=project)
    used = "cutout of 4 pixels, random erasing (p = 0.1) and mixup (alpha 0.2) or cutmix (alpha 1)"
    assert (
        f"multiplied by 0.1 after epoch 1. Training uses {used}. Trained in another way: "
        f"Teacher (other augmentation, without {used}); "
        "From scratch, Student (other augmentation, with TrivialAugment). No. Params"
    ) in read_page(project)


def test_equal_means_of_unlike_seeds_are_equally_good(project: Path, run_in_process: RunInProcess) -> None:
    """21 of 1,800 images in each row: seeds are stored with six decimals, of which the sums differ."""
    for row, wrong in (("train/teacher", (7, 7, 7)), ("train/student", (6, 7, 8)), ("distil/at/student", (30, 30, 30))):
        errors = {str(seed): round(100 * count / 600, 6) for seed, count in enumerate(wrong)}
        write_metrics(project, row, row_metrics(row, errors))
    run_in_process("report", cwd=project)
    assert [table_line(project, title)[3] for title in ("Teacher", "From scratch")] == [
        "**1.17 ± 0.00**",
        "**1.17 ± 0.17**",
    ]


def test_seeds_are_paired(project: Path, run_in_process: RunInProcess) -> None:
    """The same values in another order have the same means, but the difference is noise then."""
    write_metrics(project, "train/student", row_metrics("train/student", {"0": 8.0, "1": 9.0, "2": 10.0}))
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[4] == "−2.00 ≈"


@pytest.mark.parametrize(("top1", "shown"), [(8.0, "−1.00 ≈"), (4.0, "−5.00")])
def test_one_seed_is_tested_against_the_number_of_images(
    project: Path, top1: float, shown: str, run_in_process: RunInProcess
) -> None:
    """Of 600 images 9 % have a standard error of 1.2 %."""
    write_params(project, {**measured_params(), "seeds": [0]})
    for row, error in (("train/teacher", 2.0), ("train/student", 9.0), ("distil/at/student", top1)):
        write_metrics(project, row, row_metrics(row, {"0": error}))
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[3:5] == [f"{top1:.2f}", shown]


@pytest.mark.parametrize(("published", "shown"), [(9.0, "−2.00 ≈"), (12.0, "−5.00")])
def test_a_student_is_held_against_the_published_network_where_none_is_trained_here(
    project: Path, published: float, shown: str, run_in_process: RunInProcess
) -> None:
    """Its seeds deviate by 1.05: t = -2 / (1.05 / sqrt 3) = -3.30 with 2 degrees has p = 0.081, -8.25 has 0.014."""
    fetching = measured_params()
    fetching["fetch"] = {"student": {"url": "student.pth", "sha256": 64 * "0"}}
    fetching["train"] = ["teacher"]
    fetching["attention_maps"]["scratch"] = "fetch/student"
    fetching["tables"][0]["rows"][1] = "fetch/student"
    fetching["titles"]["fetch/student"] = fetching["titles"].pop("train/student")
    write_params(project, fetching)
    content = {**row_metrics("train/student", {"0": published}), "row": "fetch/student", "model_bytes": 12_000}
    del content["seeds"]
    write_metrics(project, "fetch/student", content)
    maps = project / "results/toy/attention-maps/distances.json"
    maps.write_text(maps.read_text().replace("train/student/seed0", "fetch/student"))
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[4] == shown
    assert table_line(project, "From scratch")[3:5] == [f"{published:.2f}", ""]


def test_against_a_published_number_only_our_own_error_is_uncertain() -> None:
    """Of 600 images 9 % have a standard error of sqrt(.09 * .91 / 600) = 1.17 %, of which 2.4 points are 2.05."""
    assert not compare({"0": 6.6}, 9.0, 600).within_noise
    assert compare({"0": 6.6}, {"0": 9.0}, 600).within_noise


@pytest.mark.parametrize(("spread", "noise"), [(0.50, True), (0.40, False)])
def test_the_level_is_five_per_cent(spread: float, noise: bool) -> None:
    """t = 1 / (spread / sqrt 3) with 2 degrees of freedom, whose value at 5 % is 4.303."""
    ours = {"0": 1.0 - spread, "1": 1.0, "2": 1.0 + spread}
    assert compare(ours, {"0": 0.0, "1": 0.0, "2": 0.0}, 600).within_noise == noise


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert [str(Comparison(d, False, 0.0)) for d in (-0.004, 0.004, -0.005)] == ["0.00", "0.00", "−0.01"]


def test_a_row_that_has_not_run_is_refused_unless_the_page_is_to_be_partial(
    project: Path, run_in_process: RunInProcess
) -> None:
    (project / "results/toy/metrics/distil/at/student.json").unlink()
    refused = run_in_process("report", cwd=project, fails=True)
    assert refused.returncode == 3
    assert "metrics/distil/at/student.json: missing" in refused.stderr
    run_in_process("report", "--partial", cwd=project)
    assert table_line(project, "Student")[2:] == ["not run", "not run", "", "7.50", "not run", ""]
    assert table_line(project, "Teacher")[3] == "**2.03 ± 0.15**"
    assert csv_line(project, "distil/at/student")["seeds"] == "0"


def test_what_is_refused_leaves_the_page_whole(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    before = files_below(project / "results/toy", ".md", ".csv")
    write_metrics(project, "train/student", row_metrics("train/student", {"0": 1.0, "1": 2.0, "2": 3.0}))
    (project / "results/toy/attention-maps/distances.json").unlink()
    assert run_in_process("report", cwd=project, fails=True).returncode == 3
    assert files_below(project / "results/toy", ".md", ".csv") == before


def test_a_stop_is_obeyed_before_anything_is_written(
    project: Path, run_in_process: RunInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moonshine.stages.report.table_csv", lambda *table: stop_is_requested(monkeypatch) or "")
    result = run_in_process("report", cwd=project, fails=True)
    assert (result.returncode, result.stderr) == (
        143,
        "error: stopped by SIGTERM: nothing is lost, run the same command again\n",
    )
    assert not (project / "results/toy/tables").exists()
    assert not (project / "results/toy/README.md").exists()


def test_a_stop_is_obeyed_before_the_next_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def make(measured: Any, size: Size) -> Any:
        drawn.append(size)
        stop_is_requested(monkeypatch)
        return alt.Chart(alt.InlineData([])).mark_point()

    monkeypatch.setattr("moonshine.report.figures.catalogue.drawable", lambda measured: list(FIGURES))
    for name, drawing in FIGURES.items():
        monkeypatch.setitem(FIGURES, name, dataclasses.replace(drawing, make=make))
    with pytest.raises(Interrupted):
        figure_files(Mock(networks={}, looks={}))
    assert drawn == [FILES]


def test_captions_speak_of_seeds_where_there_are_several(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    assert "one standard deviation over seeds" in read_page(project)
    write_params(project, {**measured_params(), "seeds": [0]})
    for row in TOP1:
        write_metrics(project, row, row_metrics(row, {"0": 2.0}))
    run_in_process("report", cwd=project)
    assert "over seeds" not in read_page(project)


@pytest.mark.slow
def test_rows_without_any_error_are_drawn_in_silence(project: Path) -> None:
    write_params(project, {**measured_params(), "seeds": [0]})
    for row in TOP1:
        write_metrics(project, row, row_metrics(row, {"0": 0.0}))
        curve = project / "results/toy/curves" / row / "seed0.csv"
        header, *lines = curve.read_text().splitlines()
        cells = [line.split(",") for line in lines]
        zeroed = [",".join([*line[:2], "0", "0", *line[4:]]) for line in cells]
        curve.write_text("\n".join([header, *zeroed]) + "\n")
    result = run_moonshine("report", cwd=project)
    assert "Warning" not in result.stderr


@pytest.mark.slow
def test_a_single_epoch_makes_no_curve(project: Path) -> None:
    content = measured_params()
    content["recipe"].update(epochs=1, lr_steps=[])
    write_params(project, content)
    for curve in (project / "results/toy/curves").rglob("*.csv"):
        curve.write_text("\n".join(curve.read_text().splitlines()[:2]) + "\n")
    run_moonshine("report", cwd=project)
    drawn = {path.stem for path in (project / "results/toy/figures").glob("*.svg")}
    assert {"training-curves", "attention-losses"} & drawn == set()
    assert "error-against-macs" in drawn
    assert "## Training" not in read_page(project)
    assert 'data-chart="training-curves"' not in (project / "results/toy/report.html").read_text()


def test_counts_stay_whole_beside_rows_that_have_not_run(project: Path, run_in_process: RunInProcess) -> None:
    error = {"0": 2.0, "1": 2.2, "2": 1.9}
    write_metrics(project, "train/teacher", row_metrics("train/teacher", error, parameters=21_814_696))
    (project / "results/toy/metrics/distil/at/student.json").unlink()
    run_in_process("report", "--partial", cwd=project)
    assert csv_line(project, "train/teacher")["parameters"] == "21814696"
    described = run_moonshine("describe", cwd=project).stdout
    count = csv_line(project, "distil/at/student")["parameters"]
    assert count.isdecimal()
    assert f" {int(count):,} " in described, "as computed without data"
    assert csv_line(project, "distil/at/student")["size"] == "", "there is no file"
    assert csv_line(project, "train/teacher")["size"] == "240000"


def test_counts_are_rounded_before_their_unit_is_chosen() -> None:
    numbers = (999, 999.7, 999_499, 999_600, 21_814_696, 999_600_000)
    assert [short_count(number) for number in numbers] == ["999", "1.00k", "999k", "1.00M", "21.8M", "1.00G"]


def test_a_recipe_without_steps_is_told_without_them(project: Path, run_in_process: RunInProcess) -> None:
    without = measured_params()
    without["recipe"]["lr_steps"] = []
    write_params(project, without)
    run_in_process("report", cwd=project)
    assert "a learning rate of 0.05. No. Params" in read_page(project)


@pytest.mark.parametrize(("precision", "told"), [("bfloat16", "epochs in bfloat16 with"), ("float32", "epochs with")])
def test_a_precision_other_than_float32_is_told(
    precision: str, told: str, project: Path, run_in_process: RunInProcess
) -> None:
    params = measured_params()
    params["recipe"]["precision"] = precision
    write_params(project, params)
    run_in_process("report", cwd=project)
    assert told in read_page(project)


def test_a_network_may_be_called_seed_something(project: Path, run_in_process: RunInProcess) -> None:
    text = (project / "params.yaml").read_text().replace("teacher/", "seedling/").replace("- teacher", "- seedling")
    text = text.replace("train/teacher", "train/seedling").replace("  teacher:", "  seedling:")
    (project / "params.yaml").write_text(text)
    results = project / "results/toy"
    content = json.loads((results / "metrics/train/teacher.json").read_text())
    write_metrics(project, "train/seedling", {**content, "row": "train/seedling"})
    (results / "curves/train/teacher").rename(results / "curves/train/seedling")
    maps = results / "attention-maps/distances.json"
    maps.write_text(maps.read_text().replace("train/teacher", "train/seedling"))
    run_in_process("report", cwd=project)
    headline = json.loads((results / "headline.json").read_text())
    assert headline["rows"]["teacher"]["row"] == "train/seedling"
    assert headline["rows"]["teacher"]["top1"] == pytest.approx(2.033333)


def test_what_others_put_into_folders_of_the_report_is_removed(project: Path, run_in_process: RunInProcess) -> None:
    stray = project / "results/toy/figures/.ipynb_checkpoints"
    stray.mkdir(parents=True)
    (stray / "notes").write_text("x")
    run_in_process("report", cwd=project)
    assert not stray.exists()


def test_a_page_of_an_experiment_that_never_ran_has_its_published_values(
    tmp_path: Path, run_in_process: RunInProcess
) -> None:
    write_params(tmp_path, measured_params())
    run_in_process("report", "--partial", cwd=tmp_path)
    assert table_line(tmp_path, "Student")[5] == "7.50"
    assert table_line(tmp_path, "Student")[3] == "not run"
    assert 'Rows marked "not run"' in read_page(tmp_path)
    assert "nan" not in read_page(tmp_path).lower()


def other_images(content: dict[str, Any]) -> None:
    content["dataset"] = {**VALIDATION, "sha256": 64 * "1"}


def other_count(content: dict[str, Any]) -> None:
    content["n"] = 599


def lost_seed(content: dict[str, Any]) -> None:
    del content["seeds"]["1"]


def infinite_seed(content: dict[str, Any]) -> None:
    content["seeds"]["1"]["top1"] = float("inf")


def missing_cost(content: dict[str, Any]) -> None:
    del content["macs"]


def wrong_mean(content: dict[str, Any]) -> None:
    content["top1"]["mean"] += 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_images, "measured on different images"),
        (other_count, "measured on different images"),
        (lost_seed, "has seeds [0, 2]"),
        (infinite_seed, "not finite"),
        (missing_cost, "damaged"),
        (wrong_mean, "is not the mean of its seeds"),
    ],
)
def test_metrics_that_do_not_fit_together_are_refused(
    project: Path, spoil: Any, message: str, run_in_process: RunInProcess
) -> None:
    content = copy.deepcopy(row_metrics("distil/at/student", TOP1["distil/at/student"]))
    spoil(content)
    write_metrics(project, "distil/at/student", content)
    for mode in ((), ("--partial",)):
        result = run_in_process("report", *mode, cwd=project, fails=True)
        assert (result.returncode, "Traceback" in result.stderr) == (3, False)
        assert message in result.stderr
    assert not (project / "results/toy/README.md").exists()


def test_attention_distances_stand_on_the_page(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in read_page(project).splitlines()]
    assert ["From scratch", "0.500", "0.400", "0.300", "0.200"] in lines
    assert ["Student", "0.250", "0.125", "0.060", "0.030"] in lines


def test_attention_maps_of_other_models_are_refused(project: Path, run_in_process: RunInProcess) -> None:
    changed = measured_params()
    changed["attention_maps"]["distilled"] = "distil/at/student/seed1"
    write_params(project, changed)
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 3
    assert "made of other models than params.yaml names; run `moonshine attention-maps`" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("25.0", "nan", "not finite"),
        ("\n2,", "\n3,", "epochs"),
        ("val_top1", "val", "damaged"),
        ("25.0", "?", "damaged"),
    ],
)
def test_damaged_curves_are_refused(
    project: Path, old: str, new: str, message: str, run_in_process: RunInProcess
) -> None:
    path = project / "results/toy/curves/train/student/seed1.csv"
    path.write_text(path.read_text().replace(old, new))
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 3
    assert "curves/train/student/seed1.csv: " in result.stderr
    assert message in result.stderr


def test_a_truncated_metrics_file_is_named(project: Path, run_in_process: RunInProcess) -> None:
    path = write_metrics(project, "train/student", '{"row": "tra')
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 3
    assert f"{path.relative_to(project)}: damaged" in result.stderr


@pytest.mark.slow
def test_the_same_metrics_give_the_same_bytes(project: Path) -> None:
    """In every figure but those of what the rows do not have: losses of logits, and latencies."""
    counts = {("cat", "cat"): 500, ("cat", "dog"): 20, ("dog", "dog"): 80}
    write_confusions(project, {row: dict.fromkeys(top1, counts) for row, top1 in TOP1.items()})
    run_moonshine("report", cwd=project, PYTHONHASHSEED="0")
    first = files_below(project / "results")
    for made in ("README.md", "report.html", "tables", "figures"):
        path = project / "results/toy" / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_moonshine("report", cwd=project, PYTHONHASHSEED="1")
    assert files_below(project / "results") == first
    drawn = FIGURES.keys() - {"logit-losses", "error-against-latency"}
    names = {f"{figure}{theme}.{kind}" for figure in drawn for theme in ("", "-dark") for kind in ("svg", "png")}
    assert {path.name for path in (project / "results/toy/figures").iterdir()} == names


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"pad": None, "crop_scale": [0.08, 1.0]}, "pad: null, crop_scale: [0.08, 1.0]"),
        ({"beta": 34.0, "groups": [1, 2]}, "beta: 34.0, groups: [1, 2]"),
        ({"outer": {"inner": {}}}, "outer: {inner: {}}"),
        ([6, 8, 9], "6, 8, 9"),
        ([], ""),
        ("[a]", "[a]"),
        (0.1, "0.1"),
    ],
)
def test_a_setting_loses_its_own_brackets_and_no_others(value: Any, text: str) -> None:
    assert plain(value) == text


def test_a_title_is_no_formula(project: Path) -> None:
    titled = measured_params()
    titled["titles"]["train/teacher"] = r"$\foo$ | teacher"
    write_params(project, titled)
    run_moonshine("report", cwd=project)
    assert r"| \$\\foo\$ \| teacher " in read_page(project)


def test_titles_and_headings_are_no_markdown(project: Path, run_in_process: RunInProcess) -> None:
    titled = measured_params()
    titled["titles"] = {"train/teacher": "a | b", "train/student": "<c> ~d~", "distil/at/student": "_e_ &amp; #"}
    titled["tables"][0].update(title="R&D [all]", caption="See [the paper](https://example.org).")
    titled["tables"][0]["published"][0]["name"] = "*ours*"
    write_params(project, titled)
    run_in_process("report", cwd=project)
    for text in (
        "## R\\&D \\[all]",
        "See [the paper](https://example.org).",
        "\\*ours\\*: Somebody, 2018",
        "| \\<c> \\~d\\~ ",
        "| \\_e\\_ \\&amp; \\# ",
    ):
        assert text in read_page(project)
    assert read_page(project).count("| \\<c> \\~d\\~ ") == 2, "in the table, and in that of attention's distances"
    index = (project / "results/README.md").read_text()
    assert "| a \\| b " in index
    assert "| \\_e\\_ \\&amp; \\# " in index


HOSTILE_PROSE = (
    "<svg onload=alert(1)>",
    "</details><!-- the rest",
    "fine\n\n# Results: 0.00 %\n\n| a |\n|---|\n| 0 |",
    "# Results",
    "Results\n=======",
    "```",
    "~~~ html",
    "* * *",
    "1. one",
    "> quoted",
    "[As CSV]: https://example.org/other.csv",
    "[As CSV](javascript:alert(1)) [x](javascript&colon;alert) [y]( <data:text/html,z>)",
)


def test_captions_notes_and_sources_are_inline_markdown_only(project: Path, run_in_process: RunInProcess) -> None:
    """The page as a Markdown parser reads it that lets HTML through."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    kept = "*Emphasis*, `code` and [a link](https://example.org/a) where 1 < 2."
    for prose in (kept, *HOSTILE_PROSE):
        written = measured_params()
        written["tables"][0]["caption"] = prose
        written["tables"][0]["published"][0]["source"] = prose
        written["tables"][0]["notes"] = [prose, "And another one."]
        write_params(project, written)
        run_in_process("report", cwd=project)
        text = read_page(project)
        tokens = [inner for token in parser.parse(text) for inner in (token, *(token.children or []))]
        if prose == kept:
            assert text.count(kept.rstrip(".")) == 3
            assert f"\n- {kept}\n- And another one.\n" in text
            usual = [token.type for token in tokens if token.block]
            targets = {str(token.attrs["href"]) for token in tokens if token.type == "link_open"}
        html = [token.content for token in tokens if token.type in ("html_block", "html_inline")]
        assert all(tag.startswith(("<picture>", "<source ", "<img ", "</picture>")) for tag in html), (prose, html)
        assert [token.type for token in tokens if token.block] == usual, prose
        assert {str(token.attrs["href"]) for token in tokens if token.type == "link_open"} <= targets, prose


def test_titles_and_captions_are_no_html(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titled = measured_params()
    titled["titles"]["train/teacher"] = "</script><b>"
    titled["tables"][0].update(title="<i>All", caption="<script>1</script>", notes=["<script>2</script>"])
    write_params(project, titled)
    monkeypatch.chdir(project)
    read = read_params(Path("params.yaml"))
    rows = read_rows(read)
    measured = Measured(list(rows.values()), {}, None, None, [])
    html = web_page(read, rows, measured, None)
    assert "&lt;script&gt;1&lt;/script&gt;" in html
    assert "<li>&lt;script&gt;2&lt;/script&gt;</li>" in html
    for raw in ("</script><b>", "<i>", "<script>1", "<script>2"):
        assert raw not in html


def test_a_headline_of_before_with_a_title_of_two_lines_stays_one_row(
    project: Path, run_in_process: RunInProcess
) -> None:
    run_in_process("report", cwd=project)
    headline = json.loads((project / "results/toy/headline.json").read_text())
    headline["rows"]["teacher"]["title"] = "Teacher\nof all"
    other = project / "results/other/headline.json"
    other.parent.mkdir()
    other.write_text(json.dumps(headline))
    run_in_process("report", cwd=project)
    assert "| Teacher of all |" in (project / "results/README.md").read_text()


def test_characters_that_the_font_lacks_are_said_in_one_line(
    project: Path, run_in_process: RunInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart = alt.Chart(alt.InlineData([{"name": "漢字 & 字"}])).mark_text().encode(text="name:N")
    monkeypatch.setattr("moonshine.stages.report.figure_files", lambda measured: render("drawing", chart.to_dict()))
    warnings = [line for line in run_in_process("report", cwd=project).stderr.splitlines() if "arning" in line]
    lacked = "warning: figures show boxes for 字漢, which their font lacks; choose other titles or class names"
    assert warnings == [lacked]


def test_a_table_of_a_former_name_does_not_stay(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    renamed = measured_params()
    renamed["tables"][0]["name"] = "renamed"
    write_params(project, renamed)
    run_in_process("report", cwd=project)
    assert [path.name for path in (project / "results/toy/tables").iterdir()] == ["renamed.csv"]


def test_a_table_of_an_unknown_row_is_refused(project: Path, run_in_process: RunInProcess) -> None:
    wrong = measured_params()
    wrong["tables"][0]["rows"].append("distil/at/studnet")
    write_params(project, wrong)
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 2
    assert 'did you mean "distil/at/student"' in result.stderr


def test_the_index_has_a_line_for_each_experiment(project: Path, run_in_process: RunInProcess) -> None:
    run_in_process("report", cwd=project)
    write_params(project, {**measured_params(), "experiment": "never-ran"})
    run_in_process("report", "--partial", cwd=project)
    lines = (project / "results/README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    measured = ["Teacher", "2.03 ± 0.15", "Student", "3.00k", "9.00 ± 1.00", "7.00 ± 1.05"]
    assert ["[toy](toy/README.md)", "digits", *measured] in cells
    index = json.loads((project / "results/never-ran/headline.json").read_text())
    size = short_count(index["rows"]["distilled"]["parameters"])
    absent = ["Teacher", "not run", "Student", size, "not run", "not run"]
    assert ["[never-ran](never-ran/README.md)", "digits", *absent] in cells


def test_a_damaged_line_of_the_index_is_named(project: Path, run_in_process: RunInProcess) -> None:
    other = project / "results/other/headline.json"
    other.parent.mkdir()
    other.write_text('{"experiment": "other"}')
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 3
    assert "results/other/headline.json: damaged" in result.stderr
