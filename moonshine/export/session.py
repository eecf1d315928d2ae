"""Running an ONNX file in onnxruntime."""

import numpy as np
import onnxruntime
import torch
from torch import nn


def open_session(exported: bytes | str, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session on the CPU for an ONNX file or its content, with as many threads as PyTorch has.

    Without `optimised`, the operators run as the file has them.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])


class OnnxNetwork(nn.Module):
    """An ONNX file from `images` to `logits` in the place of a network: float32 tensors on the CPU."""

    def __init__(self, exported: bytes | str):
        super().__init__()
        self._session = open_session(exported)

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (logits,) = self._session.run(["logits"], {"images": np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)
