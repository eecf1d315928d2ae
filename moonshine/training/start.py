"""Where a network's weights begin before its first step, if not at random."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch

from moonshine.errors import CheckpointError
from moonshine.inputs.pinned import pinned_file
from moonshine.models.model_file import load_model
from moonshine.models.weight_file import all_but_the_head, head_of, read_state, same_tensors
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime.progress import say

State = dict[str, torch.Tensor]


class Starts:
    """Tensors that networks begin with instead of random ones, by `networks.<name>.init`.

    Keeps what was read last, because runs that train together often begin with the same file or teacher.
    """

    def __init__(self, params: Params):
        self._params = params
        self._state_of_file = lru_cache(maxsize=1)(read_state)
        self._state_of_model = lru_cache(maxsize=1)(_state_of_model)

    def of(self, run: RunFolder) -> State:
        """The tensors by name, on the CPU; none for a network without `init`. A line on stderr says how many.

        Raises DataError (exit code 3) for a file other than the pinned one, SecurityError (4) for one that holds more
        than data, CheckpointError (8) for one that lacks a tensor of the network other than the classifier head's, or
        for a teacher without weights that fit.
        """
        state, said = self._with_words(run)
        if said:
            say(f"{run.row}: {said}")
        return state

    def require(self, runs: Iterable[RunFolder]) -> None:
        """Raise the same errors for all of these runs, before any of them begins."""
        for run in runs:
            self._with_words(run)

    def _with_words(self, run: RunFolder) -> tuple[State, str]:
        name, architecture = run.row.network, run.identity["network"]
        init = self._params.networks[name].init
        if init is None:
            return {}, ""
        if not isinstance(init, str):
            path = pinned_file(init, self._params.machine, f"networks.{name}.init")
            state = all_but_the_head(self._state_of_file(path), architecture, path)
            return state, f"begins with {len(state)} tensors of {path}; its classifier head is new"
        teacher = self._params.teacher
        given = self._state_of_model(artefacts.named_model(self._params.experiment, teacher), teacher)
        state = same_tensors(given, architecture, same_classes=not self._params.teacher_has_other_classes)
        if not state:
            raise CheckpointError(f"networks.{name}.init: {teacher} has no weights of its names and shapes; remove it")
        head = "" if head_of(architecture) & state.keys() else "; its classifier head is new"
        return state, f"begins with {len(state)} of the {len(given)} tensors of {teacher}, those that fit{head}"


def _state_of_model(path: Path, name: str) -> State:
    return load_model(path, name)[0].state_dict()
