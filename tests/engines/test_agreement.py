"""Both engines plan the same stages after any change; docs/engines.md shows the table of these tests."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.separate_project import ROOT
from tests.support.plans import (
    AFTER_DISTIL,
    AFTER_TRAIN,
    ALL,
    COMPARE,
    EVALUATE_DISTIL,
    EVALUATE_TRAIN,
    MAPS,
    REPORT,
    append,
    comment,
    params_change,
    planned_by_dvc,
    planned_by_snakemake,
)
from tests.support.project import copy_finished, run, run_moonshine
from tests.support.small_search import SEARCH


def altered(path: str) -> Callable[[Path], None]:
    return lambda project: append(project / path, b" ")


def added(path: str) -> Callable[[Path], None]:
    return lambda project: (project / path).touch(exist_ok=False)


def deleted(path: str) -> Callable[[Path], None]:
    return lambda project: (project / path).unlink()


def there_and_back(project: Path) -> None:
    """Another experiment is put in place, synced, and taken away again."""
    before = (project / "params.yaml").read_text()
    params_change(experiment="other")(project)
    run_moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == {name.replace("toy", "other") for name in ALL - {"prepare@digits"}}
    (project / "params.yaml").write_text(before)


def left_by_former_seeds_and_rows(project: Path) -> None:
    model = project / "models/toy/train/teacher/seed0.safetensors"
    for other in ("seed1.safetensors", "seed0.safetensors.bak"):
        shutil.copy(model, model.with_name(other))
    former = ("curves/train/teacher/seed1.csv", "curves/train/former/seed0.csv", "metrics/train/former.json")
    for name in (*former, "curves/train/notes.txt", "metrics/.DS_Store"):
        path = project / "results/toy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of before\n")


NEW_SEED = {"train@toy-teacher-1", "distil@toy-at-student-1"}
CHANGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "nothing": (lambda project: None, set()),
    "`recipe.lr`": (params_change(recipe__lr=0.04), AFTER_TRAIN),
    "`recipe.threads`": (params_change(recipe__threads=2), AFTER_TRAIN),
    "one student's network": (params_change(networks__student__conv="G(2)"), AFTER_DISTIL),
    "the file that a student begins with": (
        params_change(networks__student__init={"url": "net.pth", "sha256": 64 * "0"}),
        AFTER_DISTIL,
    ),
    "the method's beta": (params_change(methods__at__beta=20.0), AFTER_DISTIL),
    "the teacher's own recipe": (params_change(networks__teacher__recipe={"lr": 0.04}), AFTER_TRAIN),
    "one student's own recipe": (params_change(networks__student__recipe={"images": 500}), AFTER_DISTIL),
    "the method's own recipe": (params_change(methods__at__recipe={"images": 500}), AFTER_DISTIL),
    "a seed added": (params_change(seeds=[0, 1]), NEW_SEED | {EVALUATE_TRAIN, EVALUATE_DISTIL, COMPARE, REPORT}),
    "other files among models, curves and metrics": (
        left_by_former_seeds_and_rows,
        set(),
    ),
    "a row to quantise": (
        params_change(quantise={"train/teacher": {"images": 64, "per_tensor": False, "reduce_range": False}}),
        {"quantise@toy-train/teacher", REPORT},
    ),
    "a search added": (params_change(search={"small": SEARCH}), {"search@toy-small", REPORT}),
    "a title": (params_change(titles={"train/teacher": "The teacher"}), {MAPS, REPORT}),
    "the data set": (params_change(dataset__validation=500), ALL),
    "`machine.checkpoint_seconds`": (params_change(machine={"checkpoint_seconds": 7.0}), set()),
    "code of preparing": (comment("moonshine/stages/prepare.py"), ALL),
    "code of training": (comment("moonshine/training/loop.py"), AFTER_TRAIN),
    "code of distillation": (comment("moonshine/distillation/attention_transfer.py"), AFTER_DISTIL),
    "code of networks": (comment("moonshine/models/convolutions.py"), AFTER_TRAIN),
    "code of prepared images": (comment("moonshine/images/store.py"), ALL),
    "code of batches": (comment("moonshine/data/order.py"), AFTER_TRAIN),
    "code of errors over a split": (comment("moonshine/evaluation/measure.py"), AFTER_TRAIN),
    "code of counting costs": (
        comment("moonshine/costs/counts.py"),
        {EVALUATE_TRAIN, EVALUATE_DISTIL, COMPARE, REPORT},
    ),
    "code of comparing rows": (comment("moonshine/comparison/pairs.py"), {COMPARE, REPORT}),
    "code of the figures' style": (comment("moonshine/drawing/style.py"), {MAPS, REPORT}),
    "a module added to the networks": (added("moonshine/models/new.py"), AFTER_TRAIN),
    "the latencies of a machine added": (added("results/toy/latency/a-cpu.json"), {REPORT}),
    "other files among the latencies": (added("results/toy/latency/notes.txt"), set()),
    "code of the report": (comment("moonshine/report/tables.py"), {REPORT}),
    "code that changes no result": (comment("moonshine/runtime/progress.py"), set()),
    "the image (its lock of packages)": (altered("requirements/runtime.lock"), ALL),
    "the teacher altered by hand": (altered("models/toy/train/teacher/seed0.safetensors"), AFTER_TRAIN),
    "a metrics file altered by hand": (
        altered("results/toy/metrics/train/teacher.json"),
        {EVALUATE_TRAIN, COMPARE, REPORT},
    ),
    "prepared data altered by hand": (altered("data/digits/val.arrow"), ALL),
    "a student deleted": (deleted("models/toy/distil/at/student/seed0.safetensors"), AFTER_DISTIL),
    "a curve deleted": (deleted("results/toy/curves/train/teacher/seed0.csv"), AFTER_TRAIN),
    "the results page deleted": (deleted("results/toy/README.md"), {REPORT}),
    "another experiment, and back": (there_and_back, set()),
}
QUICK = {"a search added", "other files among models, curves and metrics", "the teacher altered by hand"}


def plans_after(change: str, finished: Path, folder: Path) -> tuple[set[str], set[str]]:
    """What DVC and Snakemake plan after a change and `moonshine sync`."""
    project = copy_finished(finished, folder)
    CHANGES[change][0](project)
    said = run_moonshine("sync", cwd=project).stderr
    by_dvc, by_snakemake = planned_by_dvc(project), planned_by_snakemake(project)
    assert (f"{len(by_dvc)} stages" if by_dvc else "nothing to be run") in said
    return by_dvc, by_snakemake


@pytest.mark.parametrize("change", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CHANGES])
def test_both_engines_plan_the_same_after_a_change(change: str, by_snakemake: Path, tmp_path: Path) -> None:
    by_dvc, by_snakemake_ = plans_after(change, by_snakemake, tmp_path / "project")
    assert by_dvc == by_snakemake_ == CHANGES[change][1]


NETWORKS = """
networks:
  teacher: &teacher {arch: resnet18, stem: 3x3, channels: [4, 4, 8, 8]}
  student: {<<: *teacher, conv: G(N)}
"""


@pytest.mark.slow
def test_aliases_and_merge_keys_are_what_they_stand_for_to_both_engines(by_snakemake: Path, tmp_path: Path) -> None:
    """Also in dvc.lock, where DVC writes an alias for the channels that both networks of the report share."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    before = yaml.safe_load((project / "params.yaml").read_text())
    others = {key: value for key, value in before.items() if key != "networks"}
    (project / "params.yaml").write_text(yaml.safe_dump(others) + NETWORKS)
    assert yaml.safe_load((project / "params.yaml").read_text()) == before
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    comment("moonshine/report/tables.py")(project)
    run("dvc", "repro", cwd=project)
    assert "channels: *id" in (project / "dvc.lock").read_text()
    assert planned_by_dvc(project) == set()
    assert "nothing to be run by either engine" in run_moonshine("sync", cwd=project).stderr
    assert planned_by_snakemake(project) == set()
    run_moonshine("verify", cwd=project)


@pytest.mark.slow
def test_dvc_stops_where_a_stage_gives_the_same_bytes(by_snakemake: Path, tmp_path: Path) -> None:
    """Its early cut-off, the one known difference: Snakemake would go on with all that comes after."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    comment("moonshine/stages/prepare.py")(project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == ALL
    ran = re.findall(r"Running stage '([^']+)'", run("dvc", "repro", cwd=project).stdout)
    assert ran == ["prepare@digits"]
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


def as_table(plans: dict[str, set[str]]) -> str:
    """Markdown: a line for each change, a column for each stage."""
    columns = [
        "prepare",
        "train",
        "distil",
        "search",
        "evaluate_train",
        "evaluate_distil",
        "compare",
        "quantise",
        "attention_maps",
        "report",
    ]
    lines = ["| What changed | " + " | ".join(columns) + " |", "|---|" + " :-: |" * len(columns)]
    for change, stages in plans.items():
        kinds = {stage.split("@")[0] for stage in stages}
        cells = ["both" if column in kinds else "" for column in columns]
        lines.append(f"| {change} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_documented_table_is_the_one_that_is_tested() -> None:
    assert (
        as_table({change: stages for change, (_, stages) in CHANGES.items()})
        in (ROOT / "docs" / "engines.md").read_text()
    )
