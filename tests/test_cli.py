"""What every command does at its start and end, whatever it does between."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT, environment, write_params
from tests.support.project import run_moonshine, toy_params


def shell(command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    text = command.replace("moonshine", f"{sys.executable} -m moonshine")
    return subprocess.run(["bash", "-c", text], cwd=ROOT, env=environment(**extra), capture_output=True, text=True)


@pytest.mark.slow
def test_closed_output_is_no_error() -> None:
    assert shell("moonshine use --help >&-").returncode == 0
    for closed in (">&-", "2>&-"):
        result = shell(f"moonshine check {closed}")
        assert (result.returncode, result.stdout) == (0, "")


def test_a_full_disk_behind_the_output_is_told_in_one_line() -> None:
    result = shell("moonshine show > /dev/full")
    assert result.returncode == 9
    assert result.stderr.startswith("error: standard output, or a file that was open: No space left on device")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    assert shell("moonshine show | head -1 > /dev/null; exit ${PIPESTATUS[0]}").returncode == 0


def test_a_terminal_without_utf_8_shows_what_it_can() -> None:
    result = shell("moonshine show", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert result.returncode == 0
    assert "| Resnet34 " in result.stdout
    assert " ? " in result.stdout  # ±


@pytest.mark.parametrize("arguments", [("--conv", "G(N)"), ("resnet34", "--arch", "resnet18")])
def test_options_that_would_be_ignored_are_refused(arguments: tuple[str, ...]) -> None:
    assert run_moonshine("describe", *arguments, cwd=ROOT, check=False).returncode == 2


@pytest.mark.parametrize("command", ["sync", "record", "verify", "unlock", "summary"])
def test_what_asks_an_engine_or_git_runs_in_the_projects_root_only(command: str) -> None:
    """Both look for their project in the folders above as well, and would answer for other files."""
    result = run_moonshine("--params", "../params.yaml", command, cwd=ROOT / "docs", check=False)
    assert result.returncode == 2
    assert result.stderr == "error: dvc.yaml: not in this folder; run this from the project's root\n"


@pytest.mark.parametrize("command", [("record",), ("accept", "train"), ("sync",)])
def test_what_engines_go_by_is_written_for_no_other_params_file(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    write_params(tmp_path, toy_params())
    shutil.copy(tmp_path / "params.yaml", tmp_path / "other.yaml")
    result = run_moonshine("--params", "other.yaml", *command, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: --params other.yaml: engines go by params.yaml; put it in place there\n"


def test_large_folders_behind_a_link_are_refused_for_dvc_would_not_track_them(tmp_path: Path) -> None:
    write_params(tmp_path, toy_params())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "data").symlink_to("elsewhere")
    result = run_moonshine("check", cwd=tmp_path, check=False)
    assert result.returncode == 5
    assert result.stderr.startswith("error: data: a link, where DVC tracks nothing; ")
