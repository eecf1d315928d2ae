"""What the networks of an experiment cost."""

from collections.abc import Iterable

from moonshine.checks.networks import check_networks
from moonshine.costs.counts import Cost, network_cost
from moonshine.params import Params


def network_costs(params: Params, names: Iterable[str]) -> dict[str, Cost]:
    """Network -> its cost for one image of the experiment. Raises ParamsError (exit code 2) for one that cannot run."""
    names, data = list(names), params.dataset
    check_networks(params, names)
    return {name: network_cost(params.architecture(name), data.size, data.size) for name in names}
