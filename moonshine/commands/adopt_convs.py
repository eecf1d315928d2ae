"""`moonshine search NAME --adopt NETWORK [--candidate K]`: write what a search has found into params.yaml."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from moonshine.checks.made_for import convs_found, search_problem
from moonshine.errors import DataError, ParamsError
from moonshine.params import Params
from moonshine.params.full_text import with_value
from moonshine.params.read import check_content, parse, read_content
from moonshine.project import artefacts
from moonshine.runtime.files import write_text
from moonshine.runtime.progress import say


def adopt_convs(path: Path, params: Params, search: str, network: str, candidate: int | None = None) -> None:
    """Set `convs`, `found_by` and `candidate` of networks.<network> in the params file `path`; a new one is added.

    Only a network with `convs` is changed, and everything else in the file stays to the letter. Raises DataError (exit
    code 3) if nothing was found yet, or for other params, and ParamsError (2), with the file unchanged, if there is no
    such candidate, the network is another one, or the file's layout leaves no room. No `candidate` is the best one.
    """
    found = artefacts.search(params.experiment, search)
    again, settings = f"run `moonshine search {search}`", params.search[search]
    if candidate is not None and not 0 <= candidate < settings.candidates:
        raise ParamsError(
            f"search.{search} has {settings.candidates:,} candidates, counted from 0; there is no candidate {candidate}"
        )
    if problem := search_problem(params, search):
        raise DataError(f"{found}: {problem}; {again}")
    try:
        convs = convs_found(json.loads(found.read_text(encoding="utf-8")), candidate)
    except FileNotFoundError:
        raise DataError(f"{found}: missing; {again}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{found}: damaged ({error}); {again}") from None
    if convs is None:
        raise DataError(f"{found}: damaged (it lists no convolutions); {again}")
    architecture = settings.model_dump(include={"arch", "channels", "stem"}, exclude_none=True)
    entry: dict[str, Any] = {**architecture, "convs": convs, "found_by": search}
    there = params.networks.get(network)
    if candidate is not None or (there and there.candidate is not None):
        entry["candidate"] = candidate
    if there and there.model_dump(include={"arch", "channels", "stem"}, exclude_none=True) != architecture:
        raise ParamsError(f"networks.{network}: has another architecture than search.{search}; choose another name")
    if there and there.convs is None:
        raise ParamsError(f"networks.{network}: is another network, without convs; choose another name")
    content = copy.deepcopy(read_content(path))
    content["networks"].setdefault(network, {}).update(entry)
    text = path.read_text(encoding="utf-8")
    try:
        if there:
            for key in [key for key in ("convs", "found_by", "candidate") if key in entry]:
                text = with_value(text, ("networks", network), key, entry[key])
        else:
            text = with_value(text, ("networks",), network, entry)
        written = parse(text)
    except (ValueError, yaml.YAMLError):
        written = None
    if written != content:
        by_hand = json.dumps(entry)
        raise ParamsError(f"{path}: its layout leaves no room; write it there by hand: {network}: {by_hand}")
    check_content(path, content)
    write_text(path, text)
    what = f"what search {search} found" if candidate is None else f"candidate {candidate} of search {search}"
    say(f"{path}: networks.{network} has {what}: {' '.join(convs)}")
