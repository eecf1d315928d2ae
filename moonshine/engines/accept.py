"""`moonshine accept`: tell DVC that a code edit changes no result."""

from collections.abc import Sequence
from typing import Any

from dvc.repo import Repo

from moonshine.engines.dvc_project import check_stages, open_project
from moonshine.engines.edits import harmless_edits
from moonshine.engines.record import commit
from moonshine.engines.sync import sync
from moonshine.errors import DataError, ParamsError
from moonshine.project.artefacts import PARAMS_CHECKED
from moonshine.runtime.progress import say
from moonshine.runtime.suggest import suggest


def accept(named: Sequence[str], unproven: bool) -> None:
    """Write the current code of these stages into dvc.lock, next to results that older code made.

    A name stands for one stage, or for all stages of a kind, such as `train`. Only code may have changed, and only its
    comments, docstrings and layout: this is proven by comparing the syntax trees of the version in dvc.lock (found in
    git) and the current one. `unproven` accepts any code change on the user's word. Raises DataError (exit code 3).
    """
    with open_project() as repo:
        names = _resolve(repo, named)
        edits = _edited_code(repo, names)
        lines = [f"{path}: accepted without proof" for path in edits] if unproven else _proofs(edits)
        touched = [name for name in names if any(name in stages for stages in edits.values())]
        commit(repo, dict.fromkeys([*check_stages(repo), *touched]))  # params.yaml has just been checked
    for line in lines:
        say(line)
    say(f"accepted for {len(touched)} stages; commit dvc.lock together with the edit")
    sync()


def _resolve(repo: Repo, named: Sequence[str]) -> list[str]:
    known = [stage.addressing for stage in repo.index.stages]
    for name in named:
        if not any(name in (each, each.split("@")[0]) for each in known):
            kinds = {each.split("@")[0] for each in known}
            raise ParamsError(f'unknown stage "{name}"{suggest(name, [*known, *kinds])}')
    return [each for each in known if each in named or each.split("@")[0] in named]


def _edited_code(repo: Repo, names: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """Folder or file -> {stage: md5 in dvc.lock, None if it has none}; DataError if more than code changed."""
    status: dict[str, list[Any]] = repo.status(targets=names) if names else {}
    locked = {
        stage.addressing: {dep.def_path: dep.hash_info.value for dep in stage.deps} for stage in repo.index.stages
    }
    edits: dict[str, dict[str, str | None]] = {}
    for name, entries in status.items():
        for entry in entries:
            if not isinstance(entry, dict) or set(entry) != {"changed deps"}:
                raise DataError(f"{name}: not only code changed ({_words(entry)}); run it")
            for path, kind in entry["changed deps"].items():
                if path == str(PARAMS_CHECKED):  # an older layout had no such stage
                    continue
                if kind != "modified" or not path.startswith(("moonshine/", "requirements/")):
                    raise DataError(f"{name}: not only code changed ({path} is {kind}); run it, or accept that first")
                edits.setdefault(path, {})[name] = locked[name][path]
    if not edits:
        raise DataError("nothing to accept: these stages are up to date")
    return edits


def _words(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    return "; ".join(f"{kind}: {', '.join(paths)}" for kind, paths in entry.items())


def _proofs(edits: dict[str, dict[str, str | None]]) -> list[str]:
    """One line per edited file, saying that nothing that counts differs; DataError (exit code 3) if something does."""
    lines = dict[str, None]()
    for path, stages in edits.items():
        for md5 in sorted({md5 or "" for md5 in stages.values()}):
            files = harmless_edits(path, md5)
            if files is None:
                lack = "the version in dvc.lock is not in git's history" if md5 else "dvc.lock has no version of it"
                raise DataError(f"{path}: {lack}; run the stages, or --unproven")
            if harmful := [name for name, harmless in files.items() if not harmless]:
                cure = "more than comments and docstrings changed; run the stages, or --unproven"
                raise DataError("\n".join(f"{name}: {cure}" for name in harmful))
            lines |= dict.fromkeys(f"{name}: only comments, docstrings or layout differ" for name in files)
    return list(lines)
