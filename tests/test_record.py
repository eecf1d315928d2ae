"""dvc.lock knows what Snakemake made, and never more than that."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from moonshine.engines.lineage import _shows
from moonshine.engines.unlock import _program
from moonshine.report.markdown import escape
from support import commit_all, copy_finished, environment, moonshine, run
from test_agreement import (
    AFTER_DISTIL,
    AFTER_TRAIN,
    ALL,
    DISTIL,
    EVALUATE_DISTIL,
    EVALUATE_TRAIN,
    MAPS,
    REPORT,
    TRAIN,
    append,
    comment,
    params_change,
    planned_by_snakemake,
)

STUDENT = "models/toy/distil/at/student/seed0.safetensors"


def listed(project: Path) -> set[str]:
    """The stages that `dvc status` lists."""
    return set(json.loads(run("dvc", "status", "--json", cwd=project).stdout))


@pytest.fixture
def project(by_snakemake: Path, tmp_path: Path) -> Path:
    return copy_finished(by_snakemake, tmp_path / "project")


def test_a_run_for_one_target_records_just_what_ran(project: Path) -> None:
    comment("moonshine/models/cost.py")(project)
    run("snakemake", "--cores", "1", "results/toy/metrics/train/teacher.json", cwd=project)
    assert listed(project) == {EVALUATE_DISTIL}
    moonshine("sync", cwd=project)
    assert listed(project) == {EVALUATE_DISTIL}


def test_sync_leaves_the_files_of_a_running_snakemake_alone(project: Path) -> None:
    """It would take them for older than they are."""
    comment("moonshine/models/cost.py")(project)
    lock = project / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("x\n")
    metrics = project / "results/toy/metrics/train/teacher.json"
    time_before = metrics.stat().st_mtime_ns
    engine = subprocess.Popen(
        ["snakemake", "-c", "import time; time.sleep(60)"], executable=sys.executable, cwd=project
    )
    try:
        result = moonshine("sync", cwd=project, check=False)
    finally:
        engine.kill()
        engine.wait()
    assert result.returncode == 6
    assert f"process {engine.pid}: snakemake is at work here; wait for it or stop it" in result.stderr
    assert metrics.stat().st_mtime_ns == time_before
    lock.unlink()
    moonshine("sync", cwd=project)


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("snakemake --cores 1", "snakemake"),
        ("/venv/bin/python3.11 /venv/bin/snakemake --cores 1", "snakemake"),
        ("python -m snakemake --snakefile x", "snakemake"),
        ("/usr/bin/python3 -B -X dev -W ignore -m dvc repro", "dvc"),
        ("/opt/dvc/dvc repro", "dvc"),
        ("less dvc", "less"),
        ("grep -r dvc", "grep"),
        ("SCREEN -S snakemake", "SCREEN"),
        ("python -c snakemake", "-c"),
        ("python", "python"),
        ("", ""),
    ],
)
def test_an_engine_is_what_a_process_runs_and_no_other_word_of_it(line: str, program: str) -> None:
    assert _program(line.split(" ")) == program


def test_sync_names_a_dangling_link(project: Path) -> None:
    student = project / STUDENT
    student.unlink()
    student.symlink_to("/gone/away")
    result = moonshine("sync", cwd=project, check=False)
    assert result.returncode == 3
    assert f"{STUDENT}: a link to /gone/away, which is gone; `rm` the link, then `dvc pull`" in result.stderr
    student.unlink()
    moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL


def test_a_folder_in_the_place_of_a_file_is_made_a_file_again(project: Path) -> None:
    student = project / STUDENT
    student.unlink()
    student.mkdir()
    moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL
    run("snakemake", "--cores", "1", STUDENT, cwd=project)
    assert student.is_file()


def test_after_a_failed_run_the_finished_stages_are_recorded(project: Path) -> None:
    student = project / "models/toy/distil/at/student/seed0.safetensors"
    times = student.stat()
    student.write_bytes(b"not a model")
    os.utime(student, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that Snakemake does not see it and evaluates it
    comment("moonshine/models/cost.py")(project)
    result = run("snakemake", "--cores", "1", cwd=project, check=False)
    assert result.returncode == 1
    assert "recorded 1 stages in dvc.lock" in result.stderr
    assert listed(project) >= {"distil@toy-at-student-0", EVALUATE_DISTIL}
    assert EVALUATE_TRAIN not in listed(project)


@pytest.mark.slow
def test_what_was_altered_by_hand_before_a_run_still_shows_as_changed_after_it(project: Path) -> None:
    append(project / "results/toy/metrics/train/teacher.json", b"\n")
    run("snakemake", "--cores", "1", cwd=project)
    status = json.loads(run("dvc", "status", "--json", cwd=project).stdout)
    assert status == {EVALUATE_TRAIN: [{"changed outs": {"results/toy/metrics/train/teacher.json": "modified"}}]}
    result = moonshine("record", EVALUATE_TRAIN, cwd=project, check=False)
    assert result.returncode == 3
    assert "results/toy/metrics/train/teacher.json was altered after its job had ended" in result.stderr
    assert listed(project) == {EVALUATE_TRAIN}


@pytest.mark.slow
def test_a_model_altered_by_hand_before_a_run_still_shows_as_changed_after_it(project: Path) -> None:
    """What is to be made from it refuses it; nothing is recorded of what it was."""
    teacher = project / "models/toy/train/teacher/seed0.safetensors"
    content = bytearray(teacher.read_bytes())
    content[-1] ^= 1  # the last weight
    teacher.write_bytes(content)
    result = run("snakemake", "--cores", "1", cwd=project, check=False)
    assert result.returncode == 1
    assert f"{teacher.relative_to(project)}: damaged, its checksum is wrong" in result.stderr
    assert TRAIN in listed(project)
    assert f"to be run by either engine, {len(AFTER_TRAIN)} stages" in moonshine("sync", cwd=project).stderr


def test_code_edited_while_its_stage_ran_is_not_recorded_as_what_made_it(project: Path) -> None:
    comment("moonshine/report/tables.py")(project)
    log = project / "logs/toy/report.log"
    log.unlink()
    process = subprocess.Popen(
        ["snakemake", "--cores", "1"], cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.02)
    comment("moonshine/report/tables.py")(project)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert "not recorded: report@toy: moonshine/report/tables.py was altered after the job had started" in said
    assert listed(project) == {REPORT}


def test_what_a_killed_run_left_unrecorded_is_recorded_by_hand(project: Path) -> None:
    """A Snakemake that is killed between a job and its record leaves dvc.lock as it was before."""
    (project / "dvc.lock").unlink()
    assert listed(project) >= ALL - {"prepare@digits"}
    assert f"recorded {len(ALL)} stages" in moonshine("record", cwd=project).stderr
    assert listed(project) == set()
    assert "agree" in moonshine("sync", cwd=project).stderr


def test_params_edited_since_a_killed_run_are_not_recorded_as_what_made_it(project: Path) -> None:
    (project / "dvc.lock").unlink()
    params_change(titles={"train/teacher": "Another title"})(project)
    said = moonshine("record", cwd=project).stderr
    assert "left alone: report@toy: stale already" in said
    assert listed(project) == {MAPS, REPORT}


def test_what_snakemake_has_no_record_of_is_not_recorded(project: Path) -> None:
    shutil.rmtree(project / ".snakemake/metadata")
    result = moonshine("record", REPORT, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {REPORT}: Snakemake has no record of having made results/toy/" in result.stderr


def test_a_folder_with_a_file_altered_after_its_job_is_not_recorded(project: Path) -> None:
    (project / "results/toy/figures/training-curves.svg").touch()
    result = moonshine("record", REPORT, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {REPORT}: results/toy/figures was altered after its job had ended" in result.stderr


def test_what_was_only_touched_is_not_recorded_as_made(project: Path) -> None:
    params_change(methods__at__beta=20.0)(project)
    run("snakemake", "--cores", "1", "--touch", cwd=project)
    path = "models/toy/records/distil/at/student/seed0.json"
    reason = f"{DISTIL}: {path} says that it was made otherwise (method.beta: 30.0 -> 20.0); run it\n"
    said = moonshine("record", cwd=project).stderr
    assert "recorded 0 stages" in said
    assert f"left alone: {reason}" in said
    result = moonshine("record", DISTIL, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {reason}" in result.stderr
    moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL


def test_what_sync_touched_is_valid_and_no_reason_to_complain(project: Path) -> None:
    run("touch", "-d", "2001-01-01", "models/toy/train/teacher/seed0.safetensors", cwd=project)
    shutil.rmtree(project / ".snakemake")
    assert "Snakemake now goes by dvc.lock" in moonshine("sync", cwd=project).stderr
    before = (project / "dvc.lock").read_bytes()
    assert "left alone" not in moonshine("record", cwd=project).stderr
    moonshine("record", TRAIN, EVALUATE_TRAIN, cwd=project)
    assert (project / "dvc.lock").read_bytes() == before


def test_an_unknown_stage_is_refused_and_nothing_else_recorded(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    result = moonshine("record", "train@toy-techer-0", cwd=project, check=False)
    assert result.returncode == 3
    assert "not recorded: train@toy-techer-0: no stage of dvc.yaml and params.yaml" in result.stderr
    assert (project / "dvc.lock").read_bytes() == before


def test_a_comment_is_accepted_for_chosen_stages_and_code_is_not(project: Path) -> None:
    commit_all(project)
    module = project / "moonshine/evaluation/measure.py"
    before = module.read_text()
    module.write_text(before.replace('"""Errors and loss', '"""The errors and the loss') + "# reworded\n")
    kinds = sorted(name.split("@")[0] for name in listed(project))
    assert "evaluate_train" in kinds
    said = moonshine("accept", *kinds, cwd=project).stderr
    assert "moonshine/evaluation/measure.py: only comments, docstrings or layout differ" in said
    assert listed(project) == set()
    assert "nothing to be run" in moonshine("sync", cwd=project).stderr
    changed = run("git", "diff", "--unified=0", "dvc.lock", cwd=project).stdout
    assert {line[1:].split(":")[0].strip() for line in changed.splitlines() if line[0] in "+-"} <= {
        "++ b/dvc.lock",
        "-- a/dvc.lock",
        "md5",
        "size",
    }
    commit_all(project)
    module.write_text(before.replace("min(5,", "min(4,"))
    result = moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "more than comments and docstrings changed" in result.stderr
    assert EVALUATE_TRAIN in listed(project)
    moonshine("accept", "--unproven", "evaluate_train", cwd=project)
    assert EVALUATE_TRAIN not in listed(project)


def test_changed_data_cannot_be_accepted(project: Path) -> None:
    append(project / "data/digits/val.arrow", b" ")
    result = moonshine("accept", "--unproven", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "not only code changed (data/digits/val.arrow is modified)" in result.stderr


def test_no_comment_is_seen_in_what_is_not_python(project: Path) -> None:
    append(project / "moonshine/report/page.html", b"<!-- reworded -->\n")
    result = moonshine("accept", "report", cwd=project, check=False)
    assert result.returncode == 3
    assert "moonshine/report/page.html: more than comments and docstrings changed" in result.stderr


def test_a_comment_is_held_against_the_code_in_dvc_lock_not_the_newest_in_git(project: Path) -> None:
    module = project / "moonshine/evaluation/measure.py"
    module.write_text(module.read_text().replace("min(5,", "min(4,"))
    commit_all(project)
    append(module, b"# reworded\n")
    result = moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "moonshine/evaluation/measure.py: more than comments and docstrings changed" in result.stderr


@pytest.mark.parametrize("edit", [b"def (\n", b"\0"])
def test_what_is_no_python_cannot_be_accepted(edit: bytes, project: Path) -> None:
    commit_all(project)
    append(project / "moonshine/evaluation/measure.py", edit)
    result = moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith("error: moonshine/evaluation/measure.py: no Python (")
    assert result.stderr.count("\n") == 1


def test_changed_params_cannot_be_accepted(project: Path) -> None:
    params_change(titles={"train/teacher": "The teacher"})(project)
    result = moonshine("accept", "report", cwd=project, check=False)
    assert result.returncode == 3
    assert "report@toy: not only code changed" in result.stderr


def test_lineage_reaches_the_raw_data_and_every_link_holds(project: Path) -> None:
    shown = moonshine("lineage", "distil/at/student", cwd=project).stdout
    number = json.loads((project / "results/toy/metrics/distil/at/student.json").read_text())["top1"]["mean"]
    assert f'shows {number:.2f} for "Student"' in shown
    for path in ("distil/at/student/seed0", "train/teacher/seed0"):
        assert f"models/toy/{path}.safetensors: sha256" in shown
    assert '"sha256": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"' in shown  # digits.csv.gz
    assert "BROKEN" not in shown


def test_lineage_takes_a_path_however_it_is_written(project: Path) -> None:
    model = "models/toy/train/teacher/seed0.safetensors"
    for path in (f"./{model}", str(project / model)):
        assert "links hold" in moonshine("lineage", path, cwd=project).stdout


METRICS, RECORD = "results/toy/metrics/distil/at/student.json", "models/toy/records/train/teacher/seed0.json"
BROKEN: dict[str, tuple[str, str, str, list[str]]] = {
    "page": ("results/toy/README.md", "Student", "Pupil", ["results/toy/README.md: shows"]),
    "mean": (
        METRICS,
        '"mean": ',
        '"mean": 1',
        [f"{METRICS}: evaluate_distil@toy-at-student [", f"{METRICS}: the top-1 error is the mean of 1 seeds"],
    ),
    "images": (METRICS, '"n": 600', '"n": 599', ["measured on all 599 images"]),
    "record": (RECORD, '"sha256": "', '"sha256": "0', ["is the file that its record describes"]),
    "recipe": ("params.yaml", "lr: 0.05", "lr: 0.04", ["recipe: recipe.lr: 0.05 -> 0.04"]),
    "model": ("models/toy/train/teacher/seed0.safetensors", "", " ", ["is the file that was used"]),
    "data": ("data/digits/val.arrow", "", " ", ["data/digits/val.arrow: 600 images"]),
}
"""What is altered, how (nothing for something: appended), and the links that do not hold then."""


@pytest.mark.parametrize(("path", "old", "new", "links"), BROKEN.values(), ids=BROKEN)
def test_lineage_names_the_broken_links(path: str, old: str, new: str, links: list[str], project: Path) -> None:
    file = project / path
    if old:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    else:
        append(file, new.encode())
    result = moonshine("lineage", "distil/at/student", cwd=project, check=False)
    assert result.returncode == 3
    assert "links do not hold" in result.stderr
    broken = [line.partition("BROKEN  ")[2] for line in result.stdout.splitlines()]
    for link in links:
        assert any(line.startswith(link) for line in broken), result.stdout


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("| Student | 2.22 |", True),
        ("| Student    |   **2.22 ± 0.10** |", True),
        ("| **Student** | 7 | 2.22 |", True),
        ("| Student | 12.22 |", False),
        ("| Student | 2.223 |", False),
        ("| Student AT | 2.22 |", False),
    ],
)
def test_a_row_shows_its_number_in_a_cell_of_its_own(line: str, shown: bool, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"Student 2.22\n\n{line}\n")
    assert _shows(page, "Student", "2.22") == shown
    page.write_text(line.replace("Student", escape("A|B_ **C**")))
    assert _shows(page, "A|B_ **C**", "2.22") == (shown and "AT" not in line)


def test_lineage_of_no_row_is_refused(project: Path) -> None:
    result = moonshine("lineage", "train/techer", cwd=project, check=False)
    assert result.returncode == 2
    assert 'did you mean "train/teacher"?' in result.stderr


def test_git_conflict_markers_in_dvc_lock_are_explained(project: Path) -> None:
    lock = project / "dvc.lock"
    text = lock.read_text()
    lock.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")
    for command in (("sync",), ("record",), ("lineage", "train/teacher")):
        result = moonshine(*command, cwd=project, check=False)
        assert result.returncode == 3
        assert "dvc.lock: has git's conflict markers" in result.stderr
        assert "Traceback" not in result.stderr


def test_another_dvc_at_work_is_waited_for_by_the_user(project: Path) -> None:
    hold = "from dvc.repo import Repo\nwith Repo() as r, r.lock:\n print('held', flush=True); input()"
    holder = subprocess.Popen(
        ["python", "-c", hold], cwd=project, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    result = moonshine("record", cwd=project, check=False)
    holder.communicate("\n")
    assert result.returncode == 6
    assert "another DVC command is at work" in result.stderr
    assert yaml.safe_load((project / "dvc.lock").read_text())["stages"].keys() >= ALL
