"""Commands within the test's process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from moonshine import cli
from moonshine.runtime import signals


@dataclass
class Result:
    returncode: int
    stderr: str


RunInProcess = Callable[..., Result]


@pytest.fixture
def run_in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunInProcess:
    """The command line within this process and without figures, on which it would spend seconds each time."""
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.setattr("moonshine.stages.report.figure_files", lambda measured: {})
    monkeypatch.setattr("moonshine.stages.report.web_page", lambda *pages: "")

    def run(*arguments: str, cwd: Path, fails: bool = False) -> Result:
        monkeypatch.chdir(cwd)
        code = cli.main(arguments)
        result = Result(code, capsys.readouterr().err)
        assert fails or code == 0, result.stderr
        return result

    return run
