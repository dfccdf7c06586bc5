"""Writing a word model: the ONNX graph, its numbers rounded to few bits, and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.words import evidence
from detectors.words.model import KIND_ROWS, card_file

_OPSET = 13
_INTRODUCTION = """\
# Model card of words_{language}.onnx, written by `callshield train text`.
# The program reads [model].
"""

Floats = NDArray[np.float64]


def build(
    of_grams: Floats, of_findings: Floats, intercept: float, of_kinds: Floats, intercepts: Floats
) -> bytes:
    """The serialised graph.

    Inputs ``grams`` (k,) int64, ``weights`` (k,) float32, ``findings`` (SIZE,) float32; output
    ``scores`` (7,) float32: abuse, the kinds in the order of ``evidence.ABUSE``, crisis.
    Weights are kept in 16 bits for the score and in 8 for the kinds.
    """
    scale = np.abs(of_kinds).max(axis=0) / 127
    numbers = {
        "of_grams": of_grams.astype(np.float16),
        "of_findings": of_findings.astype(np.float32),
        "intercept": np.array([intercept], dtype=np.float32),
        "of_kinds": np.round(of_kinds / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "intercepts": intercepts.astype(np.float32),
        "kind_rows": np.array(KIND_ROWS, dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
        "second": np.array([1], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["of_grams", "grams"], ["g16"], axis=0),
        node("Cast", ["g16"], ["g"], to=TensorProto.FLOAT),
        node("Mul", ["g", "weights"], ["gw"]),
        node("ReduceSum", ["gw", "first"], ["from_grams"], keepdims=1),
        node("Mul", ["of_findings", "findings"], ["fw"]),
        node("ReduceSum", ["fw", "first"], ["from_findings"], keepdims=1),
        node("Sum", ["from_grams", "from_findings", "intercept"], ["abuse"]),
        node("Mod", ["grams", "kind_rows"], ["folded"]),
        node("Gather", ["of_kinds", "folded"], ["k8"], axis=0),
        node("Cast", ["k8"], ["k"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["weights", "second"], ["column"]),
        node("Mul", ["k", "column"], ["kw"]),
        node("ReduceSum", ["kw", "first"], ["from_kinds"], keepdims=0),
        node("Mul", ["from_kinds", "scale"], ["scaled"]),
        node("Add", ["scaled", "intercepts"], ["kinds"]),
        node("Concat", ["abuse", "kinds"], ["logits"], axis=0),
        node("Sigmoid", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [
            helper.make_tensor_value_info("grams", TensorProto.INT64, ["k"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["k"]),
            helper.make_tensor_value_info("findings", TensorProto.FLOAT, [evidence.SIZE]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [len(evidence.ABUSE) + 2])],
        [numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_card(folder: Path, language: str, card: dict[str, dict[str, Any]]) -> None:
    """Write a card: tables of texts and numbers."""
    lines = [_INTRODUCTION.format(language=language).rstrip()]
    for name, table in card.items():
        lines += ["", f"[{name}]"]
        for key, value in table.items():
            text = f'"{value}"' if isinstance(value, str) else f"{value:g}"
            lines.append(f"{key} = {text}" if not isinstance(value, int) else f"{key} = {value}")
    (folder / card_file(language)).write_text("\n".join(lines) + "\n", encoding="utf-8")
