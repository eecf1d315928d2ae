"""dvc.lock knows what Snakemake made, and never more than that."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from benchmarks.separate_project import commit_all, environment
from moonshine.engines import sync as syncing
from moonshine.engines.dvc_project import is_check
from moonshine.engines.live import _program
from moonshine.engines.snakemake_plan import snakemake
from moonshine.project.artefacts import SNAKEMAKE_TIMESTAMP
from tests.support.plans import (
    AFTER_DISTIL,
    AFTER_TRAIN,
    ALL,
    CHECK,
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
from tests.support.project import copy_finished, held, run, run_moonshine, start_until_paused

STUDENT = "models/toy/distil/at/student/seed0.safetensors"


def listed(project: Path) -> set[str]:
    """The stages that `dvc status` lists, but for the check of params.yaml."""
    return set(json.loads(run("dvc", "status", "--json", cwd=project).stdout)) - {CHECK}


def recorded(project: Path) -> dict[str, Any]:
    """The stages in dvc.lock, but for the check of params.yaml, which DVC records before the stage that is to fail."""
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    return {name: stage for name, stage in stages.items() if name != CHECK}


@pytest.fixture
def project(by_snakemake: Path, tmp_path: Path) -> Path:
    return copy_finished(by_snakemake, tmp_path / "project")


@pytest.mark.slow
def test_a_run_for_one_target_records_just_what_ran(project: Path) -> None:
    comment("moonshine/costs/counts.py")(project)
    run("snakemake", "--cores", "1", "results/toy/metrics/train/teacher.json", cwd=project)
    assert listed(project) == {EVALUATE_DISTIL}
    run_moonshine("sync", cwd=project)
    assert listed(project) == {EVALUATE_DISTIL}


def test_sync_leaves_the_files_of_a_running_snakemake_alone(project: Path) -> None:
    """It would take them for older than they are."""
    comment("moonshine/costs/counts.py")(project)
    lock = project / ".snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("x\n")
    metrics = project / "results/toy/metrics/train/teacher.json"
    time_before = metrics.stat().st_mtime_ns
    engine = subprocess.Popen(
        ["snakemake", "-c", "import signal; signal.pause()"], executable=sys.executable, cwd=project
    )
    try:
        result = run_moonshine("sync", cwd=project, check=False)
    finally:
        engine.kill()
        engine.wait()
    assert result.returncode == 6
    assert f"process {engine.pid}: snakemake is running here; wait for it or stop it" in result.stderr
    assert metrics.stat().st_mtime_ns == time_before
    lock.unlink()
    run_moonshine("sync", cwd=project)


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


@pytest.mark.slow
def test_sync_names_a_dangling_link(project: Path) -> None:
    student = project / STUDENT
    student.unlink()
    student.symlink_to("/gone/away")
    result = run_moonshine("sync", cwd=project, check=False)
    assert result.returncode == 3
    assert f"{STUDENT}: a link to /gone/away, which is gone; `rm` the link, then `dvc pull`" in result.stderr
    student.unlink()
    run_moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL


@pytest.mark.slow
def test_a_folder_in_the_place_of_a_file_is_made_a_file_again(project: Path) -> None:
    student = project / STUDENT
    student.unlink()
    student.mkdir()
    run_moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL
    run("snakemake", "--cores", "1", STUDENT, cwd=project)
    assert student.is_file()


@pytest.mark.slow
def test_after_a_failed_run_the_finished_stages_are_recorded(project: Path) -> None:
    student = project / "models/toy/distil/at/student/seed0.safetensors"
    times = student.stat()
    student.write_bytes(b"not a model")
    os.utime(student, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that Snakemake does not see it and evaluates it
    comment("moonshine/costs/counts.py")(project)
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
    result = run_moonshine("record", EVALUATE_TRAIN, cwd=project, check=False)
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
    assert f"{teacher.relative_to(project)}: damaged or replaced, its sha256 is not that of models/" in result.stderr
    assert TRAIN in listed(project)
    assert f"to be run by either engine, {len(AFTER_TRAIN)} stages" in run_moonshine("sync", cwd=project).stderr


@pytest.mark.slow
def test_an_input_altered_while_its_stage_ran_is_not_recorded_as_what_it_was_made_from(project: Path) -> None:
    """What changes later the stage refuses by itself; what was changed before the stage looked only times tell."""
    comment("moonshine/report/tables.py")(project)
    metrics = "results/toy/metrics/train/teacher.json"
    process = start_until_paused("snakemake", "--cores", "1", cwd=project, phase="start")
    with held(project):
        append(project / metrics, b"\n")
    said = process.communicate()[1]
    assert process.returncode == 1
    assert f"not recorded: report@toy: {metrics} was altered after the job had started" in said
    assert listed(project) == {EVALUATE_TRAIN, REPORT}


@pytest.mark.slow
def test_what_changes_while_dvc_runs_a_stage_is_not_taken_for_what_made_it(project: Path) -> None:
    """DVC writes down the params and the code that it finds when the stage has ended."""
    module, packages = project / "moonshine/training/schedule.py", project / "requirements/runtime.lock"
    before = recorded(project)
    params_change(recipe__lr=0.04, recipe__epochs=6)(project)
    log = project / "logs/toy/train/teacher/seed0.log"
    log.unlink()
    process = start_until_paused("dvc", "repro", "train@toy-teacher-0", cwd=project, phase="training")
    code, locked = module.read_bytes(), packages.read_bytes()
    with held(project):
        comment("moonshine/training/schedule.py")(project)
        comment("requirements/runtime.lock")(project)
        params_change(recipe__lr=0.03)(project)
    assert process.wait() == 255
    code_changed = "moonshine/training/schedule.py: changed; requirements/runtime.lock: changed"
    reason = f"train: changed while it was running: recipe.lr: 0.04 -> 0.03; {code_changed}; run it again"
    assert f"error: {reason}" in log.read_text()
    assert recorded(project) == before
    module.write_bytes(code)
    packages.write_bytes(locked)
    params_change(recipe__lr=0.04)(project)
    run("dvc", "repro", "train@toy-teacher-0", cwd=project)
    assert log.read_text().count("epoch 6/6") == 1, "it was trained before, and had only to be published"
    assert TRAIN not in listed(project)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", ["models/toy/train/teacher/seed0.safetensors", "data/digits/manifest.json", "data/digits/train.arrow"]
)
def test_inputs_that_change_while_dvc_runs_a_stage_are_not_taken_for_what_it_read(changed: str, project: Path) -> None:
    path, before = project / changed, (project / "dvc.lock").read_bytes()
    content, log = path.read_bytes(), project / "logs/toy/distil/at/student/seed0.log"
    params_change(methods__at__beta=20.0)(project)
    log.unlink()
    command = ("dvc", "repro", "--single-item", "distil@toy-at-student-0")
    process = start_until_paused(*command, cwd=project, phase="training")
    with held(project):
        path.unlink()
        path.write_bytes(content + b"\n")
    assert process.wait() == 255
    assert f"error: distil: changed while it was running: {changed}: changed; run it again" in log.read_text()
    assert (project / "dvc.lock").read_bytes() == before
    path.write_bytes(content)
    run(*command, cwd=project)
    assert log.read_text().count("epoch 2/2") == 1, "it was trained before, and had only to be published"


CHECKED = "data/params-checked.txt"
"""Orders DVC's stages; its content never changes."""

NOTE_INPUTS = """
import sys
from contextlib import suppress
from moonshine import cli
from moonshine.checks import unchanged

class Noted(BaseException): ...

def note(path, stage, inputs=(), **names):
    print(*inputs)
    raise Noted

unchanged.unchanged = note
for line in sys.stdin:
    with suppress(Noted):
        cli.main(line.split())
"""


NOT_READ = (SNAKEMAKE_TIMESTAMP, "README.md")
"""Files in folders of inputs that .dvcignore leaves out."""


def test_stages_look_again_at_all_that_dvc_says_they_read(project: Path) -> None:
    """Of data at the manifest; code and the lock of packages each stage has from the list of its modules."""
    with Repo(str(project)) as repo:
        reads = {
            stage.cmd.removeprefix("containers/run python -m moonshine "): [
                Path(dependency.fs_path) for dependency in stage.deps if not isinstance(dependency, ParamsDependency)
            ]
            for stage in repo.index.stages
            if not is_check(stage.name)
        }
    noted = subprocess.run(
        [sys.executable, "-c", NOTE_INPUTS],
        input="\n".join(reads),
        cwd=project,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert len(noted) == len(reads) == len(ALL)
    for (command, paths), line in zip(reads.items(), noted):
        files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.*"))]
        read = [file for file in files if file.suffix != ".arrow" and file.name not in NOT_READ]
        names = {str(file.relative_to(project)) for file in read} - {CHECKED}
        assert {name for name in names if not name.startswith(("moonshine", "requirements"))} <= {*line.split()}, (
            command
        )


def test_a_stage_refuses_params_that_snakemake_had_not_planned(project: Path) -> None:
    planned = yaml.safe_load((project / "params.yaml").read_text())
    run_moonshine(
        "report", cwd=project, MOONSHINE_PLANNED_PARAMS=json.dumps({**planned, "machine": {"device": "cuda"}})
    )
    planned["titles"]["train/teacher"] = "Lehrer"
    before = (project / "results/toy/README.md").stat().st_mtime_ns
    result = run_moonshine("report", cwd=project, check=False, MOONSHINE_PLANNED_PARAMS=json.dumps(planned))
    reason = "params.yaml: changed since Snakemake planned this (titles.train/teacher: Lehrer -> Teacher); run it again"
    assert (result.returncode, result.stderr) == (3, f"error: {reason}\n")
    assert (project / "results/toy/README.md").stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_snakemake_had_not_planned_is_refused_although_it_is_put_back(project: Path) -> None:
    params_change(methods__at__beta=20.0)(project)
    before = (project / "params.yaml").read_text()
    process = start_until_paused("snakemake", "--cores", "1", cwd=project, phase="training")
    with held(project):
        params_change(titles={"train/teacher": "Lehrer", "distil/at/student": "Student"})(project)
    assert process.wait() == 1
    (project / "params.yaml").write_text(before)
    reason = "params.yaml: changed since Snakemake planned this (titles.train/teacher: Teacher -> Lehrer); run it again"
    assert f"error: {reason}" in (project / "logs/toy/attention_maps.log").read_text()
    assert listed(project) == {MAPS, REPORT}
    run("snakemake", "--cores", "1", cwd=project)
    assert listed(project) == set()


@pytest.mark.slow
def test_what_a_killed_run_left_unrecorded_is_recorded_by_hand(project: Path) -> None:
    """A Snakemake that is killed between a job and its record leaves dvc.lock as it was before."""
    (project / "dvc.lock").unlink()
    assert listed(project) >= ALL - {"prepare@digits"}
    assert f"recorded {len(ALL)} stages" in run_moonshine("record", cwd=project).stderr
    assert listed(project) == set()
    assert "agree" in run_moonshine("sync", cwd=project).stderr


@pytest.mark.slow
def test_params_edited_since_a_killed_run_are_not_recorded_as_what_made_it(project: Path) -> None:
    (project / "dvc.lock").unlink()
    params_change(titles={"train/teacher": "Another title"})(project)
    said = run_moonshine("record", cwd=project).stderr
    assert "left alone: report@toy: stale already" in said
    assert listed(project) == {MAPS, REPORT}


@pytest.mark.parametrize(
    ("left", "before", "committed"),
    [
        pytest.param(0, [b"cmd"], True, id="all", marks=pytest.mark.slow),
        pytest.param(0.5, [b"cmd"], False, id="no YAML", marks=pytest.mark.slow),
        pytest.param(0.5, [b"    params", b"    - path"], True, id="valid, but without inputs"),
        pytest.param(0.5, [b"    outs"], False, id="valid, but without outputs", marks=pytest.mark.slow),
    ],
)
def test_a_record_that_a_kill_cut_off_is_put_back(
    left: float, before: list[bytes], committed: bool, project: Path
) -> None:
    """DVC writes dvc.lock in place, and takes a part of it for all if it is valid."""
    lock = project / "dvc.lock"
    if committed:
        commit_all(project, "All has run")
    content = lock.read_bytes()
    part = content[: int(left * len(content))]
    for words in before:
        part = part.rpartition(words)[0]
    lock.write_bytes(part)
    for command in (("sync",), ("train", "teacher", "--seed", "0")):
        refused = run_moonshine(*command, cwd=project, check=False)
        assert refused.returncode == 3
        assert "`moonshine unlock` restores it from the last commit" in refused.stderr
    said = run_moonshine("unlock", cwd=project).stderr
    assert "dvc.lock: was not whole; now " in said
    assert (project / "runs/.leftovers/dvc.lock").read_bytes() == part
    assert yaml.safe_load(lock.read_text()) == yaml.safe_load(content)
    assert not committed or lock.read_bytes() == content
    assert listed(project) == set()
    assert "nothing was locked" in run_moonshine("unlock", cwd=project).stderr


def test_unlock_leaves_a_sound_record_alone_whatever_else_is_broken(project: Path) -> None:
    config, before = project / ".dvc/config.local", (project / "dvc.lock").read_bytes()
    config.write_text('[remote "s3"\n')
    run_moonshine("unlock", cwd=project)
    config.unlink()
    assert (project / "dvc.lock").read_bytes() == before


def test_what_is_put_in_place_with_an_older_time_is_not_recorded_as_made(project: Path) -> None:
    """As `mv`, `cp -p`, rsync and archives do."""
    model = project / STUDENT
    append(model, b"!")
    os.utime(model, (1e9, 1e9))
    said = run_moonshine("record", cwd=project).stderr
    assert f"{STUDENT} was altered after its job had ended" in said
    assert DISTIL in listed(project)


@pytest.mark.slow
def test_code_put_in_place_with_an_older_time_is_not_recorded_as_what_ran(project: Path) -> None:
    (project / "dvc.lock").unlink()
    module = project / "moonshine/evaluation/measure.py"
    times = module.stat()
    comment("moonshine/evaluation/measure.py")(project)
    os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = run_moonshine("record", cwd=project).stderr
    assert "moonshine/evaluation/measure.py was altered after the job had started that made" in said
    assert EVALUATE_TRAIN in listed(project)
    assert "prepare@digits" not in listed(project)


@pytest.mark.slow
def test_what_is_edited_while_sync_changes_times_is_seen_as_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = [project / name for name in ("results/toy/metrics/train/teacher.json", STUDENT)]

    def touch_while_somebody_edits(*arguments: str) -> str:
        if "--touch" in arguments:
            for path in edited:
                append(path, b"\n")
        return snakemake(*arguments)

    shutil.rmtree(project / ".snakemake/metadata")
    monkeypatch.chdir(project)
    monkeypatch.setattr(syncing, "snakemake", touch_while_somebody_edits)
    syncing.sync()
    assert {EVALUATE_TRAIN, DISTIL} <= listed(project)


@pytest.mark.slow
def test_what_is_set_aside_twice_is_kept_twice(project: Path) -> None:
    note = project / "results/toy/metrics/notes.md"
    for text in ("A", "B"):
        note.write_text(text)
        run_moonshine("sync", cwd=project)
    aside = project / "runs/.leftovers/results/toy/metrics"
    assert {path.name: path.read_text() for path in aside.iterdir()} == {"notes.md": "A", "notes.md.2": "B"}


def test_what_snakemake_has_no_record_of_is_not_recorded(project: Path) -> None:
    shutil.rmtree(project / ".snakemake/metadata")
    result = run_moonshine("record", REPORT, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {REPORT}: Snakemake has no record of having made results/toy/" in result.stderr


def test_a_folder_with_a_file_altered_after_its_job_is_not_recorded(project: Path) -> None:
    (project / "results/toy/figures/training-curves.svg").touch()
    result = run_moonshine("record", REPORT, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {REPORT}: results/toy/figures was altered after its job had ended" in result.stderr


@pytest.mark.slow
def test_what_was_only_touched_is_not_recorded_as_made(project: Path) -> None:
    params_change(methods__at__beta=20.0)(project)
    run("snakemake", "--cores", "1", "--touch", cwd=project)
    outdated = f"{STUDENT}: outdated (method.beta: 30.0 -> 20.0)"
    reason = f"{DISTIL}: {outdated}; run `moonshine distil at/student --seed 0`, or an engine\n"
    said = run_moonshine("record", cwd=project).stderr
    assert "recorded 0 stages" in said
    assert f"left alone: {reason}" in said
    result = run_moonshine("record", DISTIL, cwd=project, check=False)
    assert result.returncode == 3
    assert f"not recorded: {reason}" in result.stderr
    run_moonshine("sync", cwd=project)
    assert planned_by_snakemake(project) == AFTER_DISTIL


@pytest.mark.slow
def test_what_sync_touched_is_valid_and_no_reason_to_complain(project: Path) -> None:
    run("touch", "-d", "2001-01-01", "models/toy/train/teacher/seed0.safetensors", cwd=project)
    shutil.rmtree(project / ".snakemake")
    assert "Snakemake's state is now that of dvc.lock" in run_moonshine("sync", cwd=project).stderr
    before = (project / "dvc.lock").read_bytes()
    assert "left alone" not in run_moonshine("record", cwd=project).stderr
    run_moonshine("record", TRAIN, EVALUATE_TRAIN, cwd=project)
    assert (project / "dvc.lock").read_bytes() == before


def test_an_unknown_stage_is_refused_and_nothing_else_recorded(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    result = run_moonshine("record", "train@toy-techer-0", cwd=project, check=False)
    assert result.returncode == 3
    assert "not recorded: train@toy-techer-0: no stage of dvc.yaml and params.yaml" in result.stderr
    assert (project / "dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_a_comment_is_accepted_for_chosen_stages_and_code_is_not(project: Path) -> None:
    commit_all(project)
    module = project / "moonshine/evaluation/measure.py"
    before = module.read_text()
    module.write_text(before.replace('"""Errors and loss', '"""The errors and the loss') + "# reworded\n")
    kinds = sorted(name.split("@")[0] for name in listed(project))
    assert "evaluate_train" in kinds
    said = run_moonshine("accept", *kinds, cwd=project).stderr
    assert "moonshine/evaluation/measure.py: only comments, docstrings or layout differ" in said
    assert listed(project) == set()
    assert "nothing to be run" in run_moonshine("sync", cwd=project).stderr
    changed = run("git", "diff", "--unified=0", "dvc.lock", cwd=project).stdout
    assert {line[1:].split(":")[0].strip() for line in changed.splitlines() if line[0] in "+-"} <= {
        "++ b/dvc.lock",
        "-- a/dvc.lock",
        "md5",
        "size",
    }
    commit_all(project)
    module.write_text(before.replace("min(5,", "min(4,"))
    result = run_moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "more than comments and docstrings changed" in result.stderr
    assert EVALUATE_TRAIN in listed(project)
    run_moonshine("accept", "--unproven", "evaluate_train", cwd=project)
    assert EVALUATE_TRAIN not in listed(project)


def test_changed_data_cannot_be_accepted(project: Path) -> None:
    append(project / "data/digits/val.arrow", b" ")
    result = run_moonshine("accept", "--unproven", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "not only code changed (data/digits/val.arrow is modified)" in result.stderr


def test_no_comment_is_seen_in_what_is_not_python(project: Path) -> None:
    append(project / "moonshine/report/page.html", b"<!-- reworded -->\n")
    result = run_moonshine("accept", "report", cwd=project, check=False)
    assert result.returncode == 3
    assert "moonshine/report/page.html: more than comments and docstrings changed" in result.stderr


def test_a_comment_is_held_against_the_code_in_dvc_lock_not_the_newest_in_git(project: Path) -> None:
    module = project / "moonshine/evaluation/measure.py"
    module.write_text(module.read_text().replace("min(5,", "min(4,"))
    commit_all(project)
    append(module, b"# reworded\n")
    result = run_moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert "moonshine/evaluation/measure.py: more than comments and docstrings changed" in result.stderr


@pytest.mark.parametrize("edit", [b"def (\n", b"\0"])
def test_what_is_no_python_cannot_be_accepted(edit: bytes, project: Path) -> None:
    commit_all(project)
    append(project / "moonshine/evaluation/measure.py", edit)
    result = run_moonshine("accept", "evaluate_train", cwd=project, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith("error: moonshine/evaluation/measure.py: not valid Python (")
    assert result.stderr.count("\n") == 1


def test_changed_params_cannot_be_accepted(project: Path) -> None:
    params_change(titles={"train/teacher": "The teacher"})(project)
    result = run_moonshine("accept", "report", cwd=project, check=False)
    assert result.returncode == 3
    assert "report@toy: not only code changed" in result.stderr


def test_lineage_reaches_the_raw_data_and_every_link_holds(project: Path) -> None:
    shown = run_moonshine("lineage", "distil/at/student", cwd=project).stdout
    number = json.loads((project / "results/toy/metrics/distil/at/student.json").read_text())["top1"]["mean"]
    assert f"distil/at/student: top-1 error {number:.2f} %" in shown
    for path in ("distil/at/student/seed0", "train/teacher/seed0"):
        assert f"models/toy/{path}.safetensors: sha256" in shown
    assert '"sha256": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"' in shown  # digits.csv.gz
    assert "BROKEN" not in shown


@pytest.mark.slow
def test_lineage_tells_edits_that_change_nothing_from_those_accepted_without_proof(project: Path) -> None:
    commit_all(project)
    comment("moonshine/training/schedule.py")(project)
    append(project / "moonshine/training/loop.py", b"UNUSED = 1\n")
    run_moonshine("accept", "--unproven", "train", "distil", cwd=project)
    shown = run_moonshine("lineage", "train/teacher", cwd=project).stdout
    assert "  code: moonshine/training/loop.py: changed since, accepted in dvc.lock without proof\n" in shown
    assert "  code: moonshine/training/schedule.py: only comments, docstrings or layout changed since\n" in shown
    commit_all(project)
    run("git", "checkout", "--quiet", "--orphan", "without-history", cwd=project)
    commit_all(project)
    assert shown.count("is not in git") == 0
    shown = run_moonshine("lineage", "train/teacher", cwd=project).stdout
    assert shown.count("accepted in dvc.lock without proof (the version that made it is not in git)\n") == 2


def test_lineage_takes_a_path_however_it_is_written(project: Path) -> None:
    model = "models/toy/train/teacher/seed0.safetensors"
    for path in (f"./{model}", str(project / model)):
        assert "links hold" in run_moonshine("lineage", path, cwd=project).stdout


METRICS, RECORD = "results/toy/metrics/distil/at/student.json", "models/toy/records/train/teacher/seed0.json"
BROKEN: dict[str, tuple[str, str, str, list[str]]] = {
    "page": ("results/toy/README.md", "Student", "Pupil", ["results/toy/README.md: not as report@toy has it"]),
    "mean": (
        METRICS,
        '"mean": ',
        '"mean": 1',
        [
            f"{METRICS}: not as evaluate_distil@toy-at-student has it",
            f"{METRICS}: the top-1 error is the mean of 1 seeds",
        ],
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
    result = run_moonshine("lineage", "distil/at/student", cwd=project, check=False)
    assert result.returncode == 3
    assert "links do not hold" in result.stderr
    broken = [line.partition("BROKEN  ")[2] for line in result.stdout.splitlines()]
    for link in links:
        assert any(line.startswith(link) for line in broken), result.stdout


def test_lineage_of_no_row_is_refused(project: Path) -> None:
    result = run_moonshine("lineage", "train/techer", cwd=project, check=False)
    assert result.returncode == 2
    assert 'did you mean "train/teacher"?' in result.stderr


def test_git_conflict_markers_in_dvc_lock_are_explained(project: Path) -> None:
    lock = project / "dvc.lock"
    text = lock.read_text()
    lock.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")
    for command in (("sync",), ("record",), ("lineage", "train/teacher")):
        result = run_moonshine(*command, cwd=project, check=False)
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
    result = run_moonshine("record", cwd=project, check=False)
    holder.communicate("\n")
    assert result.returncode == 6
    assert "another DVC command is running" in result.stderr
    assert yaml.safe_load((project / "dvc.lock").read_text())["stages"].keys() >= ALL
