"""A program that imports moonshine keeps its own settings of Python and libraries; a command has ours."""

import subprocess
import sys

from benchmarks.separate_project import ROOT

PROGRAM = """
import gc, sys, warnings
import matplotlib, scipy.stats, torch, torchvision  # scipy and torch have filters of their own
from PIL import Image

def settings():
    backend = dict.__getitem__(matplotlib.rcParams, "backend")
    return [*warnings.filters], gc.get_threshold(), Image.core.get_blocks_max(), repr(backend)

before = settings()
from moonshine.images.decoding import decode
from moonshine.models.networks import compile_network
from moonshine.drawing.attention_figure import Example, attention_figure
from moonshine.report import figures
from moonshine.training.state import TrainingState

maps = {role: [torch.ones(2, 2).numpy()] for role in ("teacher", "scratch", "distilled")}
distances = {"scratch": [0.1], "distilled": [0.2]}
attention_figure("maps", [Example(torch.ones(1, 2, 2).numpy(), "0", maps, distances)], dict.fromkeys(maps, "a"))
compile_network(torch.nn.Conv2d(1, 4, 3))
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
assert sys.modules.get("triton", torch) is not None
"""


def test_the_library_changes_no_settings_of_the_program_that_imports_it() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


COMMAND = """
import gc, warnings
from moonshine.runtime import startup
startup.set_up()
from PIL import Image
from torch.utils.data import DataLoader

class Images:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
        return Image.core.get_blocks_max()

assert gc.get_threshold()[0] == 100_000
assert [batch.tolist() for batch in DataLoader(Images(), num_workers=1)] == [[8]]
"""


def test_a_commands_settings_are_its_loading_workers_too() -> None:
    result = subprocess.run([sys.executable, "-c", COMMAND], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
