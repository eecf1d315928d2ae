"""Static int8 quantisation of an ONNX file, with ranges of activations from calibration images."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, MinMaxCalibrater, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from moonshine.errors import CheckpointError, DataError, first_line
from moonshine.export.session import open_session

OPERATORS = sorted({*QDQRegistry, *QLinearOpsRegistry})
"""Those that onnxruntime can quantise, in a fixed order."""


def quantise(
    exported: bytes, calibration: Iterable[np.ndarray], *, per_channel: bool = True, reduce_range: bool = False
) -> bytes:
    """A float ONNX network, as `to_onnx` writes it, in int8: with QuantizeLinear and DequantizeLinear nodes (QDQ).

    Weights become int8, symmetric about 0, with one scale per output channel or, without `per_channel`, one per tensor.
    Activations become uint8 with one scale per tensor, by their smallest and largest value over all batches of
    `calibration`: float32 (batch, channels, height, width). `reduce_range` gives weights 7 bits, for processors without
    VNNI, on which sums of products of uint8 and int8 saturate. Metadata stay. The bytes depend on the arguments alone.

    Raises DataError (exit code 3) if there is no image to calibrate with or an activation is not finite,
    CheckpointError (8) if onnxruntime cannot quantise the network.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(exported))
    ranges = _ranges(model, calibration)
    try:
        quantiser = QDQQuantizer(
            model, per_channel, reduce_range, QuantType.QInt8, QuantType.QUInt8, ranges, [], [], OPERATORS, {}
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
        quantised: onnx.ModelProto = quantiser.model.model
        onnx.checker.check_model(quantised)
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise CheckpointError(f"onnxruntime cannot quantise this network: {first_line(error)}") from None
    if left := [*_in_float(quantised)]:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise CheckpointError(f"onnxruntime cannot quantise these layers: {', '.join(left[:3])}{more}")
    return quantised.SerializeToString()


def _ranges(model: onnx.ModelProto, calibration: Iterable[np.ndarray]) -> TensorsData:
    """The smallest and the largest value of each activation that has a name and can be quantised."""
    reader = _Reader(calibration)
    with tempfile.TemporaryDirectory() as folder:  # the calibrator takes files only
        path = Path(folder, "network.onnx")
        onnx.save_model(model, path)
        calibrator = _Calibrator(path, OPERATORS, str(Path(folder, "augmented.onnx")))
        calibrator.augment_graph()
        calibrator.create_inference_session()
        try:
            calibrator.collect_data(reader)
        except ValueError:
            if reader.images:
                raise
            raise DataError("no images to calibrate with: the ranges of activations are unknown") from None
    ranges = calibrator.compute_data()
    if not all(np.isfinite(each.range_value).all() for each in ranges.values()):
        raise DataError("an activation is not finite on the images for calibration")
    return ranges


class _Calibrator(MinMaxCalibrater):  # type: ignore[misc]
    """Its own sessions take all processors."""

    def create_inference_session(self) -> None:
        self.infer_session = open_session(self.augmented_model_path, optimised=False)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, calibration: Iterable[np.ndarray]):
        self._calibration: Iterator[np.ndarray] = iter(calibration)
        self.images = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next((batch for batch in self._calibration if len(batch)), None)
        if batch is None:
            return None
        self.images += len(batch)
        return {"images": batch}


def _in_float(quantised: onnx.ModelProto) -> Iterator[str]:
    """Layers whose weights, matrices of float32, onnxruntime has left as they were."""
    matrices = {
        tensor.name
        for tensor in quantised.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(size > 1 for size in tensor.dims) > 1
    }
    for node in quantised.graph.node:
        if weights := next((name for name in node.input if name in matrices), None):
            yield f"{node.op_type} {weights}"
