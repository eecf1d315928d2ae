"""What every command does at its start and end, whatever it does between."""

import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import moonshine
from benchmarks.separate_project import ROOT, environment, write_params
from moonshine.cli.parser import COMMANDS, GROUPS, parse, parser_of
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
    assert result.stderr == "error: --params other.yaml: engines read params.yaml only; copy it there\n"


def test_large_folders_behind_a_link_are_refused_for_dvc_would_not_track_them(tmp_path: Path) -> None:
    write_params(tmp_path, toy_params())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "data").symlink_to("elsewhere")
    result = run_moonshine("check", cwd=tmp_path, check=False)
    assert result.returncode == 5
    assert result.stderr.startswith("error: data: a link, where DVC tracks nothing; ")


def usage_error(*arguments: str) -> str:
    result = run_moonshine(*arguments, cwd=ROOT, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip()


def test_what_was_mistyped_is_told_in_one_line_with_the_likely_word() -> None:
    assert usage_error("trian", "x") == 'unknown command "trian" (did you mean "train"?); see `moonshine --help`'
    assert usage_error("train", "x", "--sed", "0") == (
        'unknown option --sed (did you mean "--seed"?); see `moonshine train --help`'
    )
    assert usage_error("--pramas", "x", "check").startswith('unknown option --pramas (did you mean "--params"?)')
    assert usage_error("train", "x") == "the following arguments are required: --seed; see `moonshine train --help`"
    assert usage_error("show", "page") == "unrecognized arguments: page; see `moonshine show --help`"
    assert usage_error("train", "x", "--seed", "one").startswith(
        "argument --seed: must be an integer, found 'one'; see"
    )
    assert usage_error("predict", "x", "y", "--top", "0").startswith("argument --top: must be at least 1, found 0")
    assert usage_error() == "name a command; see `moonshine --help`"


def test_params_may_stand_before_and_after_the_command() -> None:
    for arguments in ("--params no.yaml check", "check --params no.yaml", "check --params=no.yaml"):
        assert usage_error(*arguments.split()) == "no.yaml: no such file"
    assert usage_error("export", "m.safetensors", "--params", "no.yaml") == "no.yaml: no such file"


def test_after_two_dashes_nothing_is_an_option() -> None:
    command, options = parse(["predict", "model", "--top", "3", "--", "--odd.png", "-x.png"])
    assert (command.name, options.top, list(map(str, options.images))) == ("predict", 3, ["--odd.png", "-x.png"])


def test_the_version_is_that_of_the_package() -> None:
    assert run_moonshine("--version", cwd=ROOT).stdout == f"moonshine {moonshine.__version__}\n"
    assert metadata.version("moonshine") == moonshine.__version__


def test_the_help_lists_every_command_in_a_group() -> None:
    shown = run_moonshine("--help", cwd=ROOT).stdout
    for title, commands in GROUPS.items():
        listed = shown.split(f"\n{title}:\n")[1].split("\n\n")[0]
        assert [line.split()[0] for line in listed.splitlines()] == [command.name for command in commands]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_its_options_and_gives_an_example(name: str) -> None:
    parser = parser_of(COMMANDS[name])
    assert all(action.help for action in parser._actions)
    assert parser.format_help().endswith("\n  ".join(["", *COMMANDS[name].examples]) + "\n")
    for example in COMMANDS[name].examples:
        command, _ = parse(shlex.split(example)[1:])
        assert command.name == name


def test_defaults_are_shown() -> None:
    assert "(default: HEAD)" in run_moonshine("summary", "--help", cwd=ROOT).stdout
    assert "(default: 5)" in run_moonshine("predict", "--help", cwd=ROOT).stdout
    assert "(default: None)" not in "".join(parser_of(command).format_help() for command in COMMANDS.values())


def test_help_comes_without_what_commands_work_with() -> None:
    program = "import sys; from moonshine.cli import main; main(['predict', '--help'])"
    code = f"try:\n    exec({program!r})\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    """Whoever installed the Python interface alone has no YAML."""
    program = "import sys; sys.modules['yaml'] = None; from moonshine.cli import main; sys.exit(main(['check']))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (
        5,
        "error: yaml is not installed; pip install 'moonshine[pipeline]'\n",
    )
