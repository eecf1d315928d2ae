"""`make gpu-check`, rehearsed on the CPU: what it prints and writes, and that a broken promise is found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import verified
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.machine import Context
from benchmarks.gpu.parts import CHECKS, PARTS, SPEEDS
from benchmarks.separate_project import ROOT
from moonshine.errors import DataError
from moonshine.training.state import TrainingState


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rehearse(log: Path, *parts: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a rehearsal of some parts, and the lines of its file."""
    code = main([*parts, "--device", "cpu", "--tiny", "--log", str(log)])
    return code, [json.loads(line) for line in log.read_text().splitlines()]


def kinds_of(lines: list[dict[str, Any]], part: str) -> set[str]:
    return {line["kind"] for line in lines if line.get("part") == part}


def test_findings_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (machine, *findings, end) = rehearse(tmp_path / "log.jsonl", "evaluation", "maps")
    assert code == 0
    assert (machine["kind"], machine["device"], machine["card"]) == ("machine", "cpu", None)
    assert machine["parts"] == ["evaluation", "maps"]
    assert {"driver", "torch", "cuda", "cudnn", "date", "commit"} <= set(machine)
    assert kinds_of(findings, "evaluation") == {"ok", "note"}
    assert kinds_of(findings, "maps") == {"speed", "note"}
    assert (end["kind"], end["FAIL"], end["ok"]) == ("end", 0, 2)
    printed = capsys.readouterr().out
    assert all(f"{line['kind']:5} {line['name']}: {line['text']}\n" in printed for line in findings)


def test_a_broken_promise_fails_and_the_other_parts_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TrainingState, "_note_fault", lambda state, means, norm: torch.zeros(()))
    code, lines = rehearse(tmp_path / "log.jsonl", "non_finite", "evaluation")
    assert code == 1
    assert kinds_of(lines, "non_finite") == {"ok", "FAIL", "note"}  # float16 has its own way to skip a step
    assert kinds_of(lines, "evaluation") == {"ok", "note"}
    assert capsys.readouterr().out.endswith("FAILED: non-finite, float32; non-finite, bfloat16\n")


@pytest.mark.slow
def test_a_state_that_is_not_restored_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = TrainingState.load_checkpoint

    def load_without_momentum(state: TrainingState, content: dict[str, Any]) -> None:
        fresh = state.checkpoint()["optimizer"]
        load(state, {**content, "optimizer": fresh})

    monkeypatch.setattr(TrainingState, "load_checkpoint", load_without_momentum)
    code, lines = rehearse(tmp_path / "log.jsonl", "resume")
    assert code == 1
    assert kinds_of(lines, "resume") == {"FAIL", "note"}


def test_an_exception_fails_its_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Context) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setitem(PARTS, "evaluation", broken)
    code, lines = rehearse(tmp_path / "log.jsonl", "evaluation", "maps")
    assert code == 1
    assert [line["text"] for line in lines if line["kind"] == "FAIL"] == ["ended by RuntimeError: no kernel for this"]
    assert "speed" in kinds_of(lines, "maps")


def test_without_a_gpu_it_ends_with_5_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--log", str(tmp_path / "log.jsonl")]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: gpu-check: ")
    assert captured.err.endswith("make gpu-check DEVICE=cpu TINY=1 rehearses it\n")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "log.jsonl").exists()


def test_a_log_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--device", "cpu", "--tiny", "maps", "--log", str(tmp_path / "file" / "log.jsonl")]) == 9
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/file/log.jsonl: cannot be written (")
    assert said.count("\n") == 1


def test_a_cpu_rehearses_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cpu", "--log", str(tmp_path / "log.jsonl")])
    assert ended.value.code == 2
    assert "--device cpu needs --tiny" in capsys.readouterr().err


def test_a_rehearsal_prints_what_a_gpu_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PARTS:
        monkeypatch.setitem(PARTS, name, lambda context: None)
    before = verified.PAGE.read_bytes()
    assert rehearse(tmp_path / "log.jsonl")[0] == 0
    assert f"written into docs/gpu-workstation.md:\n| cpu | None | {torch.__version__}," in capsys.readouterr().out
    assert verified.PAGE.read_bytes() == before


MACHINE = {
    "kind": "machine",
    "device": "cuda",
    "card": "Card A",
    "driver": "580.1",
    "torch": "2.14.1",
    "cuda": "13.0",
    "cudnn": 92400,
    "date": "2026-01-02 03:04 UTC",
    "commit": "abc",
    "tiny": False,
    "parts": list(PARTS),
}


def write_report(path: Path, end: bool = True, **machine: Any) -> Path:
    """The file of a GPU on which everything was verified but what failed or was left out."""
    findings = [{"kind": "ok", "part": name, "name": name, "text": ""} for name in CHECKS]
    findings += [{"kind": "FAIL", "part": part, "name": "one", "text": ""} for part in ("resume", "graph")]
    findings += [{"kind": "note", "part": "processes", "name": "3 processes", "text": "", "left_out": True}]
    lines = [{**MACHINE, **machine}, *findings, *([{"kind": "end"}] if end else [])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_what_a_gpu_verified_is_written_between_the_markers(tmp_path: Path) -> None:
    page, original = tmp_path / "page.md", verified.PAGE.read_text()
    page.write_text(original)
    for card, date in (("Card B", "2026-01-01"), ("Card A", "2026-01-02"), ("Card B", "2026-01-03")):
        verified.write_row(write_report(tmp_path / "log.jsonl", card=card, date=f"{date} 03:04 UTC"), page)
    before, _, rest = page.read_text().partition(verified.BEGIN)
    table, _, after = rest.partition(verified.END_OF_TABLE)
    assert before == original.partition(verified.BEGIN)[0]
    assert after == original.partition(verified.END_OF_TABLE)[2]
    kept = ", ".join(name for name in CHECKS if name != "resume")
    cells = f"| 580.1 | 2.14.1, 13.0, 92400 | {{}}, abc | {kept} | resume, graph | 3 processes |"
    rows = [line for line in table.splitlines() if line.startswith("| Card ") and "Driver" not in line]
    assert rows == [f"| Card A {cells.format('2026-01-02')}", f"| Card B {cells.format('2026-01-03')}"]


def test_an_old_report_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(verified.PAGE.read_text())
    verified.write_row(write_report(tmp_path / "log.jsonl", date="2026-01-02 03:04 UTC"), page)
    written = page.read_text()
    with pytest.raises(DataError, match="the table has a newer report of this card and these versions, of 2026-01-02"):
        verified.write_row(write_report(tmp_path / "log.jsonl", date="2026-01-01 23:04 UTC"), page)
    assert page.read_text() == written


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ({"device": "cpu"}, "from a rehearsal"),
        ({"tiny": True}, "from a rehearsal"),
        ({"parts": ["parity"]}, "without ceilings, commands"),
        ({"end": False}, "was stopped"),
        ({"kind": "?"}, "was stopped"),
        ({"parts": None}, "not a report"),
    ],
    ids=str,
)
def test_a_report_that_is_not_whole_verifies_nothing(machine: dict[str, Any], why: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("as it was")
    with pytest.raises(DataError, match=why):
        verified.write_row(write_report(tmp_path / "log.jsonl", **machine), page)
    assert page.read_text() == "as it was"


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("hello\n")
    with pytest.raises(DataError, match="not a report"):
        verified.read_report(tmp_path / "log.jsonl")
    with pytest.raises(DataError, match="no such file"):
        verified.read_report(tmp_path / "other.jsonl")


@pytest.mark.parametrize(("page", "parts"), [("gpu-workstation", CHECKS), ("performance", SPEEDS)])
def test_every_part_is_documented(page: str, parts: dict[str, Any]) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    assert [name for name in parts if f"| `{name}` |" not in text] == []
