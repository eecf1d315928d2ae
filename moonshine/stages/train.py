"""`moonshine train`: a network from scratch, on the labels alone."""

from moonshine.params import Params
from moonshine.project.rows import Row
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime import distributed
from moonshine.training.publish import publish


def train(params: Params, network: str, seed: int) -> None:
    """Train, unless there is a finished run already, and publish. Only training imports torch."""
    run = RunFolder.open(params, Row("train", network), seed)
    if distributed.WORLD_SIZE > 1 or not run.finished():  # several processes must ask together
        from moonshine.checks.networks import check_networks
        from moonshine.training.objective import CrossEntropy
        from moonshine.training.session import train_runs

        check_networks(params)  # all of them, or a teacher might be trained whose students cannot be
        smoothing = params.recipe_of(run.row).label_smoothing or 0.0
        train_runs(params, [run], lambda row, class_weights: CrossEntropy(class_weights, smoothing), None)
    if distributed.IS_MAIN:
        publish(params.experiment, run)
