"""The code of docs/python.md and of its notebook runs as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT


def run_program(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    output = run_program("\n".join(blocks), tmp_path)
    assert "21,289,802 -> 2,624,650 parameters" in output
    assert (tmp_path / "student.onnx").is_file()


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    cells = json.loads((ROOT / "docs/moonshine.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    output = run_program("\n".join(code), ROOT)
    assert "labels and teacher" in output


def test_the_notebook_shows_what_came_out() -> None:
    cells = json.loads((ROOT / "docs/moonshine.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
