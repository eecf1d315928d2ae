"""Damage to any file that a stage reads is named, or does not matter: never another result, never a traceback."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checkpoints import stop_at
from tests.faults.damages import DAMAGES, empty, flip_a_bit, truncate
from tests.faults.experiment import DISTIL, TRAIN, Experiment, Injections, artefact_hashes
from tests.faults.forked import command
from tests.support.project import once_per_run

EVALUATE = ("evaluate", "distil/at/student")
DOCUMENTED = {3, 4, 8}


@pytest.fixture(scope="module")
def under_way(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher trained, and the student's training killed after its fifth checkpoint."""

    def make(folder: Path) -> None:
        stop_at(experiment.copy(folder / "run", "results", "distil"), 5, DISTIL)

    return once_per_run(tmp_path_factory, "under_way", make) / "run"


ARTEFACTS = {
    "manifest for training": ("data/digits/manifest.json", DISTIL),
    "training images": ("data/digits/train.arrow", DISTIL),
    "validation images": ("data/digits/val.arrow", DISTIL),
    "validation images for evaluation": ("data/digits/val.arrow", EVALUATE),
    "teacher": ("models/toy/train/teacher/seed0.safetensors", DISTIL),
    "model for evaluation": ("models/toy/distil/at/student/seed0.safetensors", EVALUATE),
    "newest checkpoint": ("runs/toy/distil/at/student/seed0/*/step-000000005.pt", DISTIL),
    "its commit record": ("runs/toy/distil/at/student/seed0/*/step-000000005.json", DISTIL),
    "identity of a run": ("runs/toy/distil/at/student/seed0/*/identity.json", DISTIL),
    "finished model": ("runs/toy/train/teacher/seed0/*/final.safetensors", TRAIN),
    "finished record": ("runs/toy/train/teacher/seed0/*/final.json", TRAIN),
}


def require_named_or_harmless(
    name: str,
    damage: Callable[[Path, random.Random], None],
    chance: random.Random,
    experiment: Experiment,
    start: Path,
    target: Path,
) -> None:
    pattern, arguments = ARTEFACTS[name]
    folder = shutil.copytree(start, target, symlinks=True)
    (path,) = folder.glob(pattern)
    intact = path.read_bytes()
    damage(path, chance)
    if arguments != DISTIL:
        shutil.rmtree(folder / "results", ignore_errors=True)
    result = command(folder, *arguments)
    what = f"{damage.__name__} of the {name}: exit {result.code}\n{result.output}"
    assert "Traceback" not in result.output, what
    if result.code == 0:
        assert experiment.unharmed(folder), what
        assert path.name == "identity.json" or "step-" in path.name or path.suffix == ".json", what
    else:
        assert result.code in DOCUMENTED, what
        assert path.name in result.output, what
        # mended as the message says, by hand or by the stage that makes it, the command works
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(intact)
        result = command(folder, *arguments)
        assert result.code == 0, result.output
        assert experiment.unharmed(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["manifest for training", "training images", "teacher", "newest checkpoint"])
def test_damage_is_named_or_harmless(
    name: str, experiment: Experiment, under_way: Path, tmp_path: Path, injected: Injections
) -> None:
    chance = random.Random(name)
    start = experiment.folder if ARTEFACTS[name][1] == EVALUATE else under_way
    with injected("damage to an artefact"):
        require_named_or_harmless(name, flip_a_bit, chance, experiment, start, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_or_harmless(
    name: str,
    damage: Callable[[Path, random.Random], None],
    experiment: Experiment,
    under_way: Path,
    tmp_path: Path,
    injected: Injections,
) -> None:
    chance = random.Random(f"{name} {damage.__name__}")
    start = experiment.folder if ARTEFACTS[name][1] == EVALUATE else under_way
    repeats = 6 if damage in (flip_a_bit, truncate) else 1
    for _ in range(repeats):
        with injected("damage to an artefact"):
            require_named_or_harmless(name, damage, chance, experiment, start, tmp_path / "run")


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    experiment: Experiment, under_way: Path, tmp_path: Path, injected: Injections
) -> None:
    folder = Experiment(under_way, {}).copy(tmp_path / "run")
    (newest,) = folder.glob("runs/toy/distil/**/step-000000005.pt")
    with injected("damage to the newest checkpoint"):
        flip_a_bit(newest, random.Random(0))
        result = command(folder, *DISTIL)
        assert result.code == 0
        assert "warning: " in result.output
        assert f"{newest.name}: its sha256 is not the recorded one; set aside, using the one before" in result.output
        assert "resuming from epoch 1, batch 3" in result.output
        assert experiment.unharmed(folder)


def test_if_all_checkpoints_are_damaged_the_run_does_not_start_anew(
    experiment: Experiment, under_way: Path, tmp_path: Path, injected: Injections
) -> None:
    folder = Experiment(under_way, {}).copy(tmp_path / "run")
    with injected("damage to all checkpoints"):
        for path in folder.glob("runs/toy/distil/**/step-*.pt"):
            empty(path, random.Random(0))
        run = next(folder.glob("runs/toy/distil/**/identity.json")).parent
        for _ in range(2):  # the second start finds nothing but what the first set aside
            result = command(folder, *DISTIL)
            assert result.code == 3
            assert "every checkpoint is damaged; delete this folder to start the run from scratch" in result.output
            assert str(run.relative_to(folder)) in result.output
        shutil.rmtree(run)
        assert command(folder, *DISTIL).code == 0
        assert experiment.unharmed(folder)


SWAPS = {
    "training and validation images": ("data/digits/train.arrow", "data/digits/val.arrow", DISTIL, 3),
    "a model and its teacher": (
        "models/toy/distil/at/student/seed0.safetensors",
        "models/toy/train/teacher/seed0.safetensors",
        EVALUATE,
        3,
    ),
    "two checkpoints": ("runs/toy/distil/**/step-000000005.*", "runs/toy/distil/**/step-000000003.*", DISTIL, 8),
    "finished runs": ("runs/toy/train/**/final.*", "runs/toy/distil/**/final.*", TRAIN, 8),
}


@pytest.mark.parametrize("name", SWAPS)
def test_swapped_files_are_told_apart(
    name: str, experiment: Experiment, under_way: Path, tmp_path: Path, injected: Injections
) -> None:
    """Both files are whole, and so are the records beside them, which are swapped too."""
    one, other, arguments, code = SWAPS[name]
    start = under_way if arguments == DISTIL else experiment.folder
    folder = Experiment(start, {}).copy(tmp_path / "run")
    with injected("swapped artefacts"):
        pairs = list(zip(sorted(folder.glob(one)), sorted(folder.glob(other)), strict=True))
        assert pairs
        for first, second in pairs:
            first.rename(folder / "aside")
            second.rename(first)
            (folder / "aside").rename(second)
        shutil.rmtree(folder / "results", ignore_errors=True)
        result = command(folder, *arguments)
        assert result.code == code, result.output
        assert "Traceback" not in result.output
        assert not list(folder.glob("results/**/*.json"))


def test_leftovers_of_a_crash_are_no_checkpoints_and_go(
    experiment: Experiment, under_way: Path, tmp_path: Path, injected: Injections
) -> None:
    folder = Experiment(under_way, {}).copy(tmp_path / "run")
    run = next(folder.glob("runs/toy/distil/**/identity.json")).parent
    with injected("leftovers of a crash"):
        (run / "step-000000009.pt").write_bytes(b"without a record")
        (run / ".step-000000010.pt.tmp-0123abcd").write_bytes(b"half")
        (run / "step-000000077.pt.corrupt").write_bytes(b"set aside once")
        result = command(folder, *DISTIL)
        assert "resuming from epoch 2, batch 1" in result.output
        assert sorted(path.name for path in run.iterdir()) == sorted(
            ["curve.csv", "final.json", "final.safetensors", "identity.json", "progress.json"]
        )
        assert experiment.unharmed(folder)
        assert artefact_hashes(folder).keys() >= {"models/toy/distil/at/student/seed0.safetensors"}
