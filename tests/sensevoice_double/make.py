"""Writes ``model.onnx``: a stand-in with the interface of SenseVoice and no knowledge of speech.

    python tests/sensevoice_double/make.py        (needs the package onnx)

Where the sound is loud it "hears" one syllable for as long, elsewhere nothing; before that it says
Korean, neutral, speech, as SenseVoice does. It shows that audio, tags, language and text pass
through sherpa-onnx and :mod:`detectors.asr.sherpa`; it measures nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS = ["<blk>", "<unk>", "아", "<|ko|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>"]
FOLDER = Path(__file__).parent
#: Mean log filter-bank energy above which the sound is loud.
LOUD = 8.0

head = np.full((1, 4, len(TOKENS)), -50.0, np.float32)
for row, token in enumerate((3, 4, 5, 6)):
    head[0, row, token] = 0.0
# Blank scores 0, the syllable its loudness; nothing else is ever chosen.
weights = np.zeros((1, len(TOKENS)), np.float32)
weights[0, 2] = 1.0
bias = np.full(len(TOKENS), -50.0, np.float32)
bias[0], bias[2] = 0.0, -LOUD

graph = helper.make_graph(
    [
        helper.make_node("ReduceMean", ["x"], ["loudness"], axes=[2], keepdims=1),
        helper.make_node("MatMul", ["loudness", "weights"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["frames"]),
        helper.make_node("Concat", ["head", "frames"], ["logits"], axis=1),
    ],
    "double",
    [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 560]),
        helper.make_tensor_value_info("x_length", TensorProto.INT32, ["N"]),
        helper.make_tensor_value_info("language", TensorProto.INT32, ["N"]),
        helper.make_tensor_value_info("text_norm", TensorProto.INT32, ["N"]),
    ],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "L", len(TOKENS)])],
    [
        numpy_helper.from_array(head, "head"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
about = {
    "model_type": "sense_voice_ctc",
    "comment": "a test double, not a model of speech",
    "vocab_size": len(TOKENS),
    "lfr_window_size": 7,
    "lfr_window_shift": 6,
    "normalize_samples": 0,
    "with_itn": 14,
    "without_itn": 15,
    "lang_auto": 0,
    "lang_zh": 3,
    "lang_en": 4,
    "lang_yue": 7,
    "lang_ja": 11,
    "lang_ko": 12,
    "lang_nospeech": 13,
    "neg_mean": ",".join(["0"] * 560),
    "inv_stddev": ",".join(["1"] * 560),
}
helper.set_model_props(model, {key: str(value) for key, value in about.items()})
onnx.checker.check_model(model)
onnx.save(model, FOLDER / "model.onnx")
lines = [f"{token} {number}\n" for number, token in enumerate(TOKENS)]
(FOLDER / "tokens.txt").write_text("".join(lines), encoding="utf-8")
