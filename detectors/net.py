"""The network of the acoustic model: fitting it and writing it as ONNX (training only)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from detectors import features

#: Features are cut at this many deviations: no line, however odd, gives an extreme score.
_CUT = 4.0
#: Perceptrons that are averaged.
NETS = 4
_HIDDEN = (32, 16)
#: Windows drawn for each net, by weight.
_DRAWN = 24_000


@dataclass(frozen=True, slots=True)
class Net:
    """Standardisation and the averaged perceptrons."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]
    """For each perceptron its (weights, bias) from input to output."""

    def log_odds(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean log odds of the perceptrons, ``(n,)``."""
        z = np.clip((x - self.mean) / self.scale, -_CUT, _CUT)
        total = np.zeros(len(z), dtype=np.float32)
        for layers in self.layers:
            h = z
            for weight, bias in layers[:-1]:
                h = np.maximum(h @ weight + bias, 0.0)
            weight, bias = layers[-1]
            total += (h @ weight + bias)[:, 0]
        return total / np.float32(len(self.layers))


def fit(
    x: NDArray[np.float32],
    raised: NDArray[np.bool_],
    weight: NDArray[np.float64],
    seed: int,
) -> Net:
    """Fit the averaged perceptrons on weighted windows."""
    mean = np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(x - mean), axis=0, weights=weight)) + 1e-6
    z = np.clip((x - mean) / scale, -_CUT, _CUT)
    layers = []
    for number in range(NETS):
        rng = np.random.default_rng(seed + number)
        drawn = rng.choice(len(z), size=_DRAWN, p=weight / weight.sum())
        net = MLPClassifier(
            _HIDDEN, alpha=3.0, max_iter=10, batch_size=256, random_state=seed + number
        )
        with warnings.catch_warnings():
            # Ten passes are the regularisation; convergence is not wanted.
            warnings.simplefilter("ignore", ConvergenceWarning)
            net.fit(z[drawn], raised[drawn])
        layers.append(
            [
                (w.astype(np.float32), b.astype(np.float32))
                for w, b in zip(net.coefs_, net.intercepts_, strict=True)
            ]
        )
    return Net(mean.astype(np.float32), scale.astype(np.float32), layers)


def export(net: Net, slope: float, offset: float) -> bytes:
    """The net with its calibration as an ONNX graph: ``features (n, F)`` to ``score (n, 1)``."""
    nodes, constants = [], []

    def constant(name: str, value: NDArray[np.float32] | float) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    z = node("Sub", ["features", constant("mean", net.mean)], "centred")
    z = node("Div", [z, constant("scale", net.scale)], "scaled")
    low, high = constant("low", -_CUT), constant("high", _CUT)
    z = node("Clip", [z, low, high], "standard")
    outs = []
    for i, layers in enumerate(net.layers):
        h = z
        for j, (weight, bias) in enumerate(layers):
            names = [h, constant(f"w{i}_{j}", weight), constant(f"b{i}_{j}", bias)]
            h = node("Gemm", names, f"gemm{i}_{j}")
            if j < len(layers) - 1:
                h = node("Relu", [h], f"relu{i}_{j}")
        outs.append(h)
    mean = node("Mean", outs, "log_odds")
    mean = node("Mul", [mean, constant("slope", slope)], "sloped")
    mean = node("Add", [mean, constant("offset", offset)], "calibrated")
    node("Sigmoid", [mean], "score")
    shape_in: list[str | int | None] = ["n", features.FEATURE_COUNT]
    shape_out: list[str | int | None] = ["n", 1]
    graph = helper.make_graph(
        nodes,
        "vocal_effort",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape_out)],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="detectors.train"
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
