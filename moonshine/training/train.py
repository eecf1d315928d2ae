"""`moonshine train`: a network from scratch, on the labels alone."""

from moonshine.params import Params
from moonshine.training.objective import CrossEntropy
from moonshine.training.session import publish, train_rows


def train(params: Params, network: str, seed: int) -> None:
    row = f"train/{network}"
    (run,) = train_rows(params, [row], seed, lambda _: CrossEntropy(), None)
    publish(params, row, seed, run)
