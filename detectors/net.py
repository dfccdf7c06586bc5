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
NETS = 8
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
    raised: NDArray[np.float64],
    weight: NDArray[np.float64],
    seed: int,
) -> Net:
    """Fit the averaged perceptrons on weighted windows; ``raised`` is 0 to 1, half-raised too."""
    mean = np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(x - mean), axis=0, weights=weight)) + 1e-6
    z = np.clip((x - mean) / scale, -_CUT, _CUT)
    layers = []
    for number in range(NETS):
        rng = np.random.default_rng(seed + number)
        drawn = rng.choice(len(z), size=_DRAWN, p=weight / weight.sum())
        net = MLPClassifier(
            _HIDDEN, alpha=1.0, max_iter=12, batch_size=256, random_state=seed + number
        )
        with warnings.catch_warnings():
            # A dozen passes are the regularisation; convergence is not wanted.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # A half-raised voice is drawn as raised half the time.
            net.fit(z[drawn], rng.random(len(drawn)) < raised[drawn])
        layers.append(
            [
                (w.astype(np.float32), b.astype(np.float32))
                for w, b in zip(net.coefs_, net.intercepts_, strict=True)
            ]
        )
    return Net(mean.astype(np.float32), scale.astype(np.float32), layers)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A net whose log odds were calibrated on speakers that it had not heard."""

    net: Net
    slope: float
    offset: float


def export(alone: Calibrated, relative: Calibrated) -> bytes:
    """The model as an ONNX graph.

    Inputs: ``features (n, F)``, ``reference (n, F)`` (the mean features of the caller's own calm
    speech) and ``known (n, 1)``, 0 to 1: how well that is known. Outputs ``(n, 1)`` each:
    ``score``, the mean log odds of the features and, as far as ``known``, of their distance from
    the reference, as a probability; ``alone``, the same from the features alone.

    Args:
        alone: on the features.
        relative: on the features less the reference.
    """
    graph = _Graph()
    first = graph.net("a", "features", alone)
    distance = graph.node("Sub", ["features", "reference"], "distance")
    second = graph.net("r", distance, relative)
    half = graph.constant("half", 0.5)
    # A caller of whom nothing is known is judged by the features alone.
    weight = graph.node("Mul", ["known", half], "weight")
    change = graph.node("Sub", [second, first], "change")
    part = graph.node("Mul", [change, weight], "part")
    mixed = graph.node("Add", [first, part], "mixed")
    graph.node("Sigmoid", [mixed], "score")
    graph.node("Sigmoid", [first], "alone")
    rows: list[str | int | None] = ["n", features.FEATURE_COUNT]
    column: list[str | int | None] = ["n", 1]

    def value(name: str, shape: list[str | int | None]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    made = helper.make_graph(
        graph.nodes,
        "vocal_effort",
        [value("features", rows), value("reference", rows), value("known", column)],
        [value("score", column), value("alone", column)],
        graph.constants,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], producer_name="detectors.train"
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """Nodes and constants of an ONNX graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: NDArray[np.float32] | float) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def net(self, name: str, source: str, part: Calibrated) -> str:
        """A calibrated net on a node's output; returns the node of its log odds."""
        net = part.net
        z = self.node("Sub", [source, self.constant(f"{name}_mean", net.mean)], f"{name}_centred")
        z = self.node("Div", [z, self.constant(f"{name}_scale", net.scale)], f"{name}_scaled")
        edges = [self.constant(f"{name}_low", -_CUT), self.constant(f"{name}_high", _CUT)]
        z = self.node("Clip", [z, *edges], f"{name}_standard")
        outs = []
        for i, layers in enumerate(net.layers):
            h = z
            for j, (weight, bias) in enumerate(layers):
                at = f"{name}{i}_{j}"
                names = [h, self.constant(f"w{at}", weight), self.constant(f"b{at}", bias)]
                h = self.node("Gemm", names, f"gemm{at}")
                if j < len(layers) - 1:
                    h = self.node("Relu", [h], f"relu{at}")
            outs.append(h)
        mean = self.node("Mean", outs, f"{name}_log_odds")
        mean = self.node(
            "Mul", [mean, self.constant(f"{name}_slope", part.slope)], f"{name}_sloped"
        )
        offset = self.constant(f"{name}_offset", part.offset)
        return self.node("Add", [mean, offset], f"{name}_calibrated")
