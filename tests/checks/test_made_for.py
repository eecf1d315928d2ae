"""What was made for other params, data or models is used by no stage, and every command says so."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.separate_project import ROOT, environment, write_params
from moonshine.checks.data import DIGITS_VALIDATION, ORIGINS, VALIDATION_SHARE, _asked
from moonshine.params.schema import Dataset
from moonshine.preparation import layouts
from moonshine.runtime.files import sha256
from moonshine.sources.digits import DEFAULT_VALIDATION
from tests.support.imagenet_archives import Archives, jpeg_params
from tests.support.layouts import CLASSES, pictures, write_files
from tests.support.plans import (
    AFTER_TRAIN,
    ALL,
    COMPARE,
    DISTIL,
    EVALUATE_TRAIN,
    MAPS,
    REPORT,
    TRAIN,
    params_change,
    planned_by_dvc,
    planned_by_snakemake,
)
from tests.support.project import ANOTHER_OWNER, copy_finished, run, run_moonshine, toy_params
from tests.support.small_data import write_cifar, write_fashion_mnist

TEACHER, STUDENT = (f"models/toy/{row}/seed0.safetensors" for row in ("train/teacher", "distil/at/student"))
OTHER = 64 * "1"


@pytest.fixture
def project(by_snakemake: Path, tmp_path: Path) -> Path:
    return copy_finished(by_snakemake, tmp_path / "project")


def by_hand(project: Path) -> Path:
    """As if all had been made by hand: Snakemake knows nothing of it, and dvc.lock nothing."""
    shutil.rmtree(project / ".snakemake")
    (project / "dvc.lock").unlink()
    return project


def refused(project: Path, *command: str) -> list[str]:
    """What a command says that ends with exit code 3, a line each."""
    result = run_moonshine(*command, cwd=project, check=False)
    assert result.returncode == 3, result.stderr
    return [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]


def digits(raw: Path) -> dict[str, Any]:
    params = toy_params()
    del params["dataset"]["validation"]
    return params


def imagenet(raw: Path) -> dict[str, Any]:
    files = Archives(classes=12, train=2, val=24, odd=False).write(raw)
    return jpeg_params("imagenet", raw, 12, files=files)


def own_images(raw: Path) -> dict[str, Any]:
    """A folder per class, without a split."""
    write_files(raw, pictures(each=18))
    return jpeg_params("folder", raw, len(CLASSES))


def pinned(role: str, kind: str) -> Callable[[dict[str, Any]], None]:
    return lambda dataset: dataset["files"][role].update({kind: OTHER if kind != "md5" else OTHER[:32]})


def setting(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda dataset: dataset.update(changes)


SOURCES: dict[str, tuple[Callable[[Path], dict[str, Any]], list[tuple[Callable[[dict[str, Any]], None], str]]]] = {
    "digits": (
        digits,
        [
            (setting(validation=400), "prepared with dataset.validation 360, not 400"),
            (setting(training=500), "prepared with dataset.training None, not 500"),
            (setting(size=8), "prepared with dataset.size 12, not 8"),
        ],
    ),
    "fashion_mnist": (
        write_fashion_mnist,
        [
            (pinned("val_images", "content_sha256"), f"prepared with dataset.files.val_images {{}}, not {OTHER}"),
            (setting(training=150), "prepared with dataset.training None, not 150"),
        ],
    ),
    "cifar10": (
        lambda raw: write_cifar("cifar10", raw),
        [(pinned("archive", "sha256"), f"prepared with dataset.files.archive {{}}, not {OTHER}")],
    ),
    "imagenet": (
        imagenet,
        [
            (pinned("train", "md5"), f"prepared with dataset.files.train {{}}, not {OTHER[:32]}"),
            (setting(resize=30), "prepared with dataset.resize None, not 30"),
            (
                setting(evaluation={"resize": 26}),
                "prepared with dataset.evaluation {{'resize': 28}}, not {{'resize': 26}}",
            ),
            (setting(source="folder", files=None), "prepared with dataset.source ILSVRC2012, not folder"),
        ],
    ),
    "folder": (
        own_images,
        [
            (setting(validation_share=0.5), "prepared with dataset.validation_share 0.2, not 0.5"),
            (setting(exif_orientation=True), "prepared with dataset.exif_orientation False, not True"),
            (setting(labels="labels.csv"), "prepared with dataset.labels None, not labels.csv"),
            (setting(channels=1), "prepared with dataset.channels 3, not 1"),
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [pytest.param(source, marks=[pytest.mark.slow] if source != "digits" else []) for source in SOURCES]
)
def test_data_prepared_for_other_params_are_read_by_no_stage(source: str, tmp_path: Path) -> None:
    make, changes = SOURCES[source]
    params = make(tmp_path / "raw")
    params["fetch"] = {"teacher": {"url": "net.pth", "sha256": OTHER}}
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    name = params["dataset"]["name"]
    renamed = {
        "files": {role: {**file, "name": "another"} for role, file in params["dataset"].get("files", {}).items()}
    }
    write_params(tmp_path, {**params, "dataset": {**params["dataset"], **(renamed if renamed["files"] else {})}})
    assert refused(tmp_path, "fetch", "teacher")[0].startswith("net.pth: no such file"), (
        "the data are as they should be"
    )
    for change, problem in changes:
        changed = json.loads(json.dumps(params))
        change(changed["dataset"])
        write_params(tmp_path, changed)
        roles = {
            role: next(v for k, v in f.items() if "sha" in k or k == "md5") for role, f in renamed["files"].items()
        }
        pin = roles.get(problem.partition("files.")[2].partition(" ")[0])
        for command in (("train", "teacher", "--seed", "0"), ("fetch", "teacher")):
            assert refused(tmp_path, *command) == [f"data/{name}: {problem.format(pin)}; run `moonshine prepare`"]


def test_every_key_of_a_data_set_that_decides_bytes_is_compared() -> None:
    asked = {key.partition(".")[0] for key in _asked(Dataset(**toy_params()["dataset"]))}
    assert set(Dataset.model_fields) - asked == {"name", "files", "shared", "licensed"}
    assert DIGITS_VALIDATION == DEFAULT_VALIDATION
    assert VALIDATION_SHARE == layouts.VALIDATION_SHARE
    for source, origin in ORIGINS.items():
        assert f'"source": "{origin}"' in (ROOT / f"moonshine/sources/{source}.py").read_text()


@pytest.mark.slow
def test_data_of_other_params_made_by_hand_are_planned_by_both_engines(project: Path) -> None:
    by_hand(project)
    params_change(dataset__validation=500)(project)
    problem = "prepared with dataset.validation 600, not 500"
    for command in (("train", "teacher", "--seed", "0"), ("evaluate", "train/teacher"), ("attention-maps",)):
        assert refused(project, *command) == [f"data/digits: {problem}; run `moonshine prepare`"]
    assert f"data/digits/manifest.json: {problem}; run `moonshine prepare`, or an engine" in refused(project, "report")
    assert f"data/digits/manifest.json: {problem}; repair: moonshine prepare, or an engine" in refused(
        project, "verify"
    )
    shown = run_moonshine("status", cwd=project).stdout
    assert "of 2 networks 2 outdated" in shown
    assert f"train/teacher/seed0: data/digits is {problem}" in shown
    assert planned_by_dvc(project) == planned_by_snakemake(project) == ALL


def test_a_recipe_edited_after_the_results_is_not_written_over_them(project: Path) -> None:
    page = project / "results/toy/README.md"
    before = page.read_bytes()
    params_change(recipe__lr=0.5)(project)
    outdated = "outdated (recipe.lr: 0.05 -> 0.5)"
    by_train = f"{TEACHER}: {outdated}; run `moonshine train teacher --seed 0`, or an engine"
    by_distil = f"{STUDENT}: {outdated}; run `moonshine distil at/student --seed 0`, or an engine"
    assert refused(project, "report") == refused(project, "report", "--partial") == [by_train, by_distil]
    assert refused(project, "evaluate", "distil/at/student") == [by_distil]
    assert refused(project, "distil", "at/student", "--seed", "0") == [by_train]
    assert refused(project, "distil", "--together", "--seed", "0") == [by_train]
    assert refused(project, "attention-maps") == [by_train, by_distil]
    assert page.read_bytes() == before
    shutil.rmtree(project / "models")  # as in a clone, where dvc.lock alone knows
    metrics = "results/toy/metrics/train/teacher.json"
    by_lock = f"{metrics}: outdated, says dvc.lock (recipe.lr: 0.05 -> 0.5); run `moonshine train teacher --seed 0`"
    assert refused(project, "report")[0] == f"{by_lock}, or an engine"
    params_change(recipe__lr=0.05)(project)
    run_moonshine("report", cwd=project)
    shutil.rmtree(project / "data")
    params_change(dataset__validation=500)(project)
    assert "dataset.validation: 600 -> 500" in refused(project, "report")[0]


@pytest.mark.slow
def test_results_of_another_model_or_other_images_are_not_shown(project: Path) -> None:
    record = project / "models/toy/records/train/teacher/seed0.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": OTHER}))
    lines = refused(project, "report")
    assert f"results/toy/metrics/train/teacher.json: measured on another {TEACHER}; run `moonshine evaluate" in lines[0]
    assert f"distances.json: drawn of another {TEACHER}; run `moonshine attention-maps`" in lines[1]
    assert refused(project, "evaluate", "train/teacher") == [
        f"{TEACHER}: damaged or replaced, its sha256 is not that of {record.relative_to(project)}; "
        "run `moonshine train teacher --seed 0`, or an engine"
    ]
    assert planned_by_snakemake(project) >= {EVALUATE_TRAIN, MAPS, REPORT}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"{", "its record models/toy/records/train/teacher/seed0.json, or the file itself, is damaged"),
        (b'{"row": "train/teacher", "identity": [], "sha256": 3}', "seed0.json, or the file itself, is damaged"),
        (b'{"row": "train/teacher", "identity": {}, "sha256": ""}', "outdated (data: changed; network: None -> {"),
    ],
)
def test_a_record_that_says_nothing_is_refused(damage: bytes, words: str, project: Path) -> None:
    (project / "models/toy/records/train/teacher/seed0.json").write_bytes(damage)
    assert words in refused(project, "evaluate", "train/teacher")[0]
    assert "Traceback" not in run_moonshine("status", cwd=project).stderr
    assert planned_by_snakemake(project) >= AFTER_TRAIN


@pytest.mark.slow
def test_another_seed_s_model_and_another_row_s_record_are_told(project: Path) -> None:
    params_change(seeds=[0, 1])(project)
    for name in (TEACHER, "models/toy/records/train/teacher/seed0.json"):
        shutil.copy(project / name, project / name.replace("seed0", "seed1"))
    (line,) = refused(project, "evaluate", "train/teacher")
    assert line.startswith(f"{TEACHER.replace('seed0', 'seed1')}: outdated (seed: 0 -> 1)")


@pytest.mark.slow
def test_a_lock_that_was_written_by_hand_with_the_wrong_params_is_named(project: Path) -> None:
    params_change(methods__at__beta=20.0)(project)
    run("dvc", "commit", "--force", "--quiet", cwd=project)
    assert json.loads(run("dvc", "status", "--json", cwd=project).stdout) == {}
    problem = "outdated (method.beta: 30.0 -> 20.0)"
    (line,) = refused(project, "sync")
    assert line.startswith(f"{DISTIL}: {STUDENT}: {problem}, but dvc.lock has it as current")
    assert line.endswith(f"`dvc repro --force --single-item {DISTIL}`")
    assert refused(project, "verify")[0].startswith(f"{STUDENT}: {problem}; repair: ")
    assert problem in run_moonshine("status", cwd=project).stdout
    assert any(
        "BROKEN  method: method.beta: 30.0 -> 20.0" in line for line in lineage_lines(project, "distil/at/student")
    )
    assert DISTIL in planned_by_snakemake(project)
    run("snakemake", "--cores", "1", cwd=project)
    run_moonshine("sync", cwd=project)
    run_moonshine("verify", cwd=project)


def lineage_lines(project: Path, target: str) -> list[str]:
    return run_moonshine("lineage", target, cwd=project, check=False).stdout.splitlines()


@pytest.mark.slow
def test_lineage_names_the_cause_of_a_link_that_does_not_hold(project: Path) -> None:
    params_change(titles={"train/teacher": "Teacher"})(project)
    (broken,) = [line for line in lineage_lines(project, "train/teacher") if "BROKEN" in line]
    assert broken.endswith(f"README.md: not as {REPORT} has it in dvc.lock: titles in params.yaml is modified")
    (project / "dvc.lock").unlink()
    broken_links = [line for line in lineage_lines(project, "train/teacher") if "BROKEN" in line]
    assert f"{TEACHER}: {TRAIN} was never recorded; `moonshine record` does if Snakemake ran it" in broken_links[2]
    assert max(map(len, broken_links)) < 200


@pytest.fixture(scope="module")
def fetching(by_snakemake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished experiment with a fetched row in it, fetched by hand; another checkpoint lies beside it."""
    project = copy_finished(by_snakemake, tmp_path_factory.mktemp("fetching") / "project")
    state = load_file(project / TEACHER)
    for name, factor in (("net.pth", 1.0), ("other.pth", 2.0)):
        torch.save(
            {key: value * factor if value.is_floating_point() else value for key, value in state.items()},
            project / name,
        )
    pin(project, "net.pth")
    run_moonshine("fetch", "teacher", cwd=project)
    return project


def pin(project: Path, name: str) -> None:
    params_change(fetch={"teacher": {"url": name, "sha256": sha256(project / name)}}, teacher="fetch/teacher")(project)


FETCHED = "models/toy/fetch/teacher.safetensors"
OF_FETCHED = {"fetch@toy-teacher", "evaluate_fetch@toy-teacher", DISTIL, COMPARE, MAPS, REPORT}


@pytest.mark.slow
def test_a_checkpoint_fetched_by_hand_whose_pin_changed_is_used_by_nothing(fetching: Path, tmp_path: Path) -> None:
    project = copy_finished(fetching, tmp_path / "project")
    pin(project, "other.pth")
    hashes = [sha256(project / name) for name in ("net.pth", "other.pth")]
    problem = f"outdated (fetch.sha256: {' -> '.join(hashes)}; fetch.url: net.pth -> other.pth)"
    line = f"{FETCHED}: {problem}; run `moonshine fetch teacher`, or an engine"
    assert refused(project, "evaluate", "fetch/teacher") == [line]
    assert refused(project, "distil", "at/student", "--seed", "0") == [line]
    assert line in refused(project, "attention-maps")
    assert line in refused(project, "report", "--partial")
    assert f"fetch/teacher: {problem}" in run_moonshine("status", cwd=project).stdout
    assert f"{FETCHED}: {problem}; repair: moonshine fetch teacher, or an engine" in refused(project, "verify")
    assert planned_by_snakemake(project) >= OF_FETCHED
    assert planned_by_dvc(project) == planned_by_snakemake(project)
    (objection, *_) = refused(project, "record", "fetch@toy-teacher")
    assert "not recorded: fetch@toy-teacher: " in objection
    run_moonshine("fetch", "teacher", cwd=project)
    run_moonshine("evaluate", "fetch/teacher", cwd=project)
    run_moonshine("sync", cwd=project)


@pytest.mark.slow
def test_a_fetched_model_of_another_network_is_told_by_the_file(fetching: Path, tmp_path: Path) -> None:
    project = copy_finished(fetching, tmp_path / "project")
    params_change(networks__teacher__channels=[4, 4, 8, 16])(project)
    (line,) = refused(project, "evaluate", "fetch/teacher")
    assert line.startswith(f"{FETCHED}: outdated (network.channels: [4, 4, 8, 8] -> [4, 4, 8, 16]); run ")


@pytest.mark.slow
def test_what_snakemake_made_for_former_params_and_a_hand_for_others_is_planned(fetching: Path, tmp_path: Path) -> None:
    """Snakemake's own note has the params as they are again, but not the file."""
    project = copy_finished(fetching, tmp_path / "project")
    run("snakemake", "--cores", "1", cwd=project)
    run("snakemake", "--cores", "1", "--forcerun", FETCHED, cwd=project)
    assert planned_by_snakemake(project) == planned_by_dvc(project) == set()
    pin(project, "other.pth")
    run_moonshine("fetch", "teacher", cwd=project)
    pin(project, "net.pth")
    assert planned_by_snakemake(project) >= OF_FETCHED
    run("snakemake", "--cores", "1", cwd=project)
    run_moonshine("verify", cwd=project)
    assert planned_by_snakemake(project) == planned_by_dvc(project) == set()


@pytest.mark.slow
def test_a_distilled_row_is_outdated_with_its_teacher(project: Path) -> None:
    params_change(networks__teacher__channels=[4, 4, 8, 16])(project)
    (line,) = refused(project, "evaluate", "distil/at/student")
    problem = "outdated (network.channels: [4, 4, 8, 8] -> [4, 4, 8, 16])"
    assert line.startswith(f"{STUDENT}: its teacher train/teacher/seed0 is {problem}; run ")


OTHER_PILLOW = """
import sys
from importlib import metadata
version = metadata.version
metadata.version = lambda name: "0.1" if name == "pillow" else version(name)
from moonshine import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_on_photographs_is_not_gone_on_with_under_another_pillow(tmp_path: Path) -> None:
    write_params(tmp_path, imagenet(tmp_path / "raw"))
    run_moonshine("prepare", cwd=tmp_path)
    run_moonshine("train", "teacher", "--seed", "0", cwd=tmp_path)
    record = json.loads((tmp_path / "models/toy/records/train/teacher/seed0.json").read_text())
    assert {"pillow", "jpeg", "numpy"} <= record["identity"].keys()
    run("git", "init", "--quiet", cwd=tmp_path)
    command = [sys.executable, "-c", OTHER_PILLOW, "train", "teacher", "--seed", "0"]
    variables = environment(**ANOTHER_OWNER)
    result = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    assert re.search(r"an older run is not resumed because it differs in pillow: [0-9.]+ -> 0\.1\n", result.stderr)
    refusal = "warning: the record will not name the commit: git refuses: fatal: detected dubious ownership"
    assert result.stderr.count(refusal) == 1


def test_the_libraries_of_photographs_are_no_part_of_a_run_on_small_images(by_snakemake: Path) -> None:
    record = json.loads((by_snakemake / "models/toy/records/train/teacher/seed0.json").read_text())
    assert set(record["identity"]) == {"recipe", "network", "seed", "data", "code", "torch", "torchvision"}
    assert yaml.safe_load((by_snakemake / "params.yaml").read_text())["dataset"]["source"] == "digits"


@pytest.mark.slow
def test_a_copy_that_drops_fractions_of_seconds_leaves_finished_rows_done(project: Path) -> None:
    for path in [*project.glob("models/**/*"), *project.glob("runs/**/*")]:
        os.utime(path, (int(path.stat().st_mtime),) * 2)
    assert "toy: of 2 networks 2 done" in run_moonshine("status", cwd=project).stdout
