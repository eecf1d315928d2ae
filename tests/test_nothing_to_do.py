"""What makes it cheap to find that nothing is to be done."""

from pathlib import Path

import pytest
import ruamel.yaml

from support import ROOT


def test_dvc_parses_its_files_in_c() -> None:
    assert ruamel.yaml.__with_libyaml__


@pytest.mark.parametrize(
    "path",
    [ROOT / name for name in ("dvc.yaml", "dvc.lock", "params.yaml")] + sorted(ROOT.glob("experiments/*.yaml")),
    ids=lambda path: path.stem + path.suffix,
)
def test_the_parser_in_c_reads_what_the_one_in_python_reads(path: Path) -> None:
    text = path.read_text()
    assert ruamel.yaml.YAML(typ="safe").load(text) == ruamel.yaml.YAML(typ="safe", pure=True).load(text)
