"""Make ``models/silero_8k.onnx`` from Silero's own file: ``python -m detectors.silero_build FILE``.

``FILE`` is ``silero_vad/data/silero_vad.onnx`` of the PyPI wheel ``silero-vad`` (MIT, © Silero
Team; see ``models/silero_LICENSE.txt``). No weight is changed. What changes is the graph round
them: theirs takes one window of 32 ms a run and holds an 8 and a 16 kHz model behind a switch; ours
is the 8 kHz model alone and takes all windows of a hop of all calls in one run. The encoder has no
memory, so its windows go side by side; only the LSTM walks through them in turn.

Needs ``onnx``, of the training packages; the product does not.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detectors.silero import LICENCE_FILE, MODEL_FILE, STATE_SIZE, WINDOW_SAMPLES

#: ``silero_vad.onnx`` of silero-vad 6.2.3.
SOURCE_SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
_OPSET = 17
#: Samples mirrored at a window's end, as upstream does, so that four STFT frames fit.
_MIRRORED = 32


def weights_8k(source: onnx.ModelProto) -> dict[str, Any]:
    """The 8 kHz model's weights by their names in Silero's code, ``{"decoder.rnn.bias_hh": …}``."""
    (switch,) = [node for node in source.graph.node if node.op_type == "If"]
    (branch,) = [a.g for a in switch.attribute if a.name == "else_branch"]
    found: dict[str, Any] = {}
    for node in branch.node:
        name = node.output[0].rpartition("__")[2]
        if node.op_type == "Constant" and name.endswith(("weight", "bias", "ih", "hh", "buffer")):
            found[name] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _lstm_order(matrix: Any) -> Any:
    """PyTorch stacks the gates in, forget, cell, out; ONNX in, out, forget, cell."""
    gate_in, forget, cell, out = np.split(matrix, 4)
    return np.concatenate([gate_in, out, forget, cell])


def batched_model(weights: dict[str, Any]) -> onnx.ModelProto:
    """The batched graph.

    Inputs: ``windows`` ``(calls, windows, 288)`` float32 in -1..1, ``hidden`` and ``cell``
    ``(1, calls, 128)``. Outputs: ``speech`` ``(calls, windows)``, 0..1, ``hidden_after``,
    ``cell_after``.
    """
    bias = np.concatenate(
        [_lstm_order(weights["decoder.rnn.bias_ih"]), _lstm_order(weights["decoder.rnn.bias_hh"])]
    )
    stored: dict[str, Any] = {
        "stft": weights["stft.forward_basis_buffer"],
        "lstm_input": _lstm_order(weights["decoder.rnn.weight_ih"])[None],
        "lstm_hidden": _lstm_order(weights["decoder.rnn.weight_hh"])[None],
        "lstm_bias": bias[None],
        "out_weight": weights["decoder.decoder.2.weight"].reshape(STATE_SIZE, 1),
        "out_bias": weights["decoder.decoder.2.bias"],
        "mirrored": np.array([0, 0, 0, 0, 0, _MIRRORED], np.int64),
        "side_by_side": np.array([-1, 1, WINDOW_SAMPLES], np.int64),
        "half": np.array([STATE_SIZE // 2 + 1, STATE_SIZE // 2 + 1], np.int64),
        "no_size": np.array([STATE_SIZE], np.int64),
        "direction": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }
    for i in range(4):
        for kind in ("weight", "bias"):
            stored[f"encoder_{i}_{kind}"] = weights[f"encoder.{i}.reparam_conv.{kind}"]
    node = helper.make_node
    nodes = [
        node("Shape", ["windows"], ["shape"], start=0, end=2),
        node("Reshape", ["windows", "side_by_side"], ["flat"]),
        node("Pad", ["flat", "mirrored"], ["padded"], mode="reflect"),
        node("Conv", ["padded", "stft"], ["spectrum"], strides=[64], kernel_shape=[128]),
        node("Split", ["spectrum", "half"], ["real", "imaginary"], axis=1),
        node("Mul", ["real", "real"], ["real_2"]),
        node("Mul", ["imaginary", "imaginary"], ["imaginary_2"]),
        node("Add", ["real_2", "imaginary_2"], ["power"]),
        node("Sqrt", ["power"], ["encoded_0"]),
    ]
    for i, stride in enumerate((1, 2, 2, 1)):
        nodes += [
            node(
                "Conv",
                [f"encoded_{i}", f"encoder_{i}_weight", f"encoder_{i}_bias"],
                [f"linear_{i}"],
                strides=[stride],
                kernel_shape=[3],
                pads=[1, 1],
            ),
            node("Relu", [f"linear_{i}"], [f"encoded_{i + 1}"]),
        ]
    nodes += [
        node("Concat", ["shape", "no_size"], ["sequence_shape"], axis=0),
        node("Reshape", ["encoded_4", "sequence_shape"], ["by_call"]),
        node("Transpose", ["by_call"], ["by_time"], perm=[1, 0, 2]),
        node(
            "LSTM",
            ["by_time", "lstm_input", "lstm_hidden", "lstm_bias", "", "hidden", "cell"],
            ["walked", "hidden_after", "cell_after"],
            hidden_size=STATE_SIZE,
        ),
        node("Squeeze", ["walked", "direction"], ["steps"]),
        node("Relu", ["steps"], ["firing"]),
        node("MatMul", ["firing", "out_weight"], ["weighed"]),
        node("Add", ["weighed", "out_bias"], ["log_odds"]),
        node("Sigmoid", ["log_odds"], ["probability"]),
        node("Squeeze", ["probability", "last"], ["speech_by_time"]),
        node("Transpose", ["speech_by_time"], ["speech"], perm=[1, 0]),
    ]
    state: list[int | str] = [1, "calls", STATE_SIZE]

    def tensor(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "silero_8k",
        [
            tensor("windows", ["calls", "windows", WINDOW_SAMPLES]),
            tensor("hidden", state),
            tensor("cell", state),
        ],
        [
            tensor("speech", ["calls", "windows"]),
            tensor("hidden_after", state),
            tensor("cell_after", state),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    # The oldest form that knows these operators: older onnxruntimes shall read it too.
    model.ir_version = 8
    model.producer_name = "callshield"
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Command line; exit status 1 on another file than the one expected."""
    parser = argparse.ArgumentParser(description="Make the batched 8 kHz form of Silero VAD.")
    parser.add_argument("file", type=Path, help="silero_vad.onnx of the wheel silero-vad 6.2.3")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    arguments = parser.parse_args()
    content = arguments.file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SOURCE_SHA256:
        sys.stderr.write(
            f"{arguments.file} is not silero_vad.onnx of silero-vad 6.2.3 (sha256 {found}, "
            f"expected {SOURCE_SHA256})\n"
        )
        sys.exit(1)
    model = batched_model(weights_8k(onnx.load_model_from_string(content)))
    made = model.SerializeToString(deterministic=True)
    (arguments.out / MODEL_FILE).write_bytes(made)
    sys.stdout.write(
        f"{MODEL_FILE}: sha256 {hashlib.sha256(made).hexdigest()}\n"
        f"write it into detectors/silero.py; the licence stands in {LICENCE_FILE}\n"
    )


if __name__ == "__main__":
    main()
