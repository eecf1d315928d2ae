"""params.yaml: its schema, and reading it with one-line errors."""

from moonshine.params.read import read_params
from moonshine.params.schema import Method, Network, Params, Recipe

__all__ = ["Method", "Network", "Params", "Recipe", "read_params"]
