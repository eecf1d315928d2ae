"""Moonshine: replace a network's costly convolutions with cheap ones and distil the original into the result.

The names below are for use in Python; docs/python.md shows them. Each is imported on first use, so that
`import moonshine` takes no time and what is not used need not be installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from moonshine.api import Distiller, cheapen, list_convolutions
    from moonshine.costs.counts import Cost, cost
    from moonshine.deployment.features_file import export_features
    from moonshine.deployment.openvino_file import export_openvino
    from moonshine.distillation.attention_transfer import attention_loss, attention_map
    from moonshine.distillation.dist import dist_losses
    from moonshine.distillation.dkd import dkd_losses
    from moonshine.distillation.knowledge_distillation import kd_loss
    from moonshine.distillation.logit_standardisation import standardise_logits
    from moonshine.distillation.ttm import ttm_loss
    from moonshine.export.onnx_file import export_onnx
    from moonshine.models.attention_layers import attention_layers
    from moonshine.models.model_file import load_model

_HOMES = {
    "Cost": "costs.counts",
    "Distiller": "api",
    "attention_layers": "models.attention_layers",
    "attention_loss": "distillation.attention_transfer",
    "attention_map": "distillation.attention_transfer",
    "cheapen": "api",
    "cost": "costs.counts",
    "dist_losses": "distillation.dist",
    "dkd_losses": "distillation.dkd",
    "export_features": "deployment.features_file",
    "export_onnx": "export.onnx_file",
    "export_openvino": "deployment.openvino_file",
    "kd_loss": "distillation.knowledge_distillation",
    "list_convolutions": "api",
    "load_model": "models.model_file",
    "standardise_logits": "distillation.logit_standardisation",
    "ttm_loss": "distillation.ttm",
}

__all__ = [
    "Cost",
    "Distiller",
    "__version__",
    "attention_layers",
    "attention_loss",
    "attention_map",
    "cheapen",
    "cost",
    "dist_losses",
    "dkd_losses",
    "export_features",
    "export_onnx",
    "export_openvino",
    "kd_loss",
    "list_convolutions",
    "load_model",
    "standardise_logits",
    "ttm_loss",
]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
