"""`moonshine use`: put one of experiments/ in place as params.yaml."""

from pathlib import Path

from moonshine.errors import ParamsError
from moonshine.files import write_text
from moonshine.params import read_params
from moonshine.progress import say
from moonshine.suggest import suggest

FOLDER = Path("experiments")


def use(name: str, target: Path) -> None:
    """Check experiments/<name>.yaml and copy it to `target`; what is there stays in git's history.

    ParamsError (exit code 2) where there is no such experiment or its file is wrong; `target` then stays as it is.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = (file.stem for file in FOLDER.glob("*.yaml"))
        raise ParamsError(f'"{name}" is no experiment{suggest(name, known)}')
    params = read_params(path)
    write_text(target, path.read_text(encoding="utf-8"))
    say(f"{target}: now {path}, {len(params.rows)} rows, seeds {params.seeds}")
