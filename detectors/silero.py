"""Silero VAD at 8 kHz, all calls of a hop in one run of the model.

The weights are Silero's own (MIT, © Silero Team; ``models/silero_LICENSE.txt``), the graph round
them is ours (:mod:`detectors.silero_build`). Upstream cuts audio into windows of 256 samples, each
with the last 32 of the one before it. Here a window begins every 250 samples, so that a hop of half
a second is sixteen whole windows and nothing waits for the next hop; the probabilities move by
0.02 on average, and the figures of ``docs/detection.md`` do not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from callshield.errors import DetectorModelError

SHIPPED = Path(__file__).parent / "models"
MODEL_FILE = "silero_8k.onnx"
LICENCE_FILE = "silero_LICENSE.txt"
#: Of the file that :mod:`detectors.silero_build` makes; another file is not loaded.
SHA256 = "63288663490d9269bb246554672b9db6418dd047486d74fc5749f4a505019850"
#: Samples under one window, and from one window to the next.
WINDOW_SAMPLES = 288
STEP_SAMPLES = 250
#: Numbers in each of the two vectors that the model remembers of a call.
STATE_SIZE = 128


class Memory(NamedTuple):
    """What the model remembers of each call; ``(calls, 128)`` float32 each."""

    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]


def blank(calls: int) -> Memory:
    """The memory of calls of which nothing was heard yet."""
    shape = (calls, STATE_SIZE)
    return Memory(np.zeros(shape, np.float32), np.zeros(shape, np.float32))


def cut_windows(hops: NDArray[np.int16]) -> NDArray[np.float32]:
    """The windows that end in each hop.

    Args:
        hops: ``(n, before + length)`` int16 at 8 kHz; ``before`` are at least 38 samples from
            before the hop, ``length`` a multiple of 250.

    Returns:
        ``(n, length / 250, 288)`` float32 in -1..1; the last ends with the hop.
    """
    count = (hops.shape[1] - WINDOW_SAMPLES) // STEP_SAMPLES + 1
    first = hops.shape[1] - WINDOW_SAMPLES - (count - 1) * STEP_SAMPLES
    scaled = hops[:, first:].astype(np.float32) * np.float32(1.0 / 32768.0)
    views = np.lib.stride_tricks.sliding_window_view(scaled, WINDOW_SAMPLES, axis=1)
    return np.ascontiguousarray(views[:, ::STEP_SAMPLES])


def find_model(folder: Path | None) -> Path:
    """The model in a site's own model folder where there is one, else the shipped one."""
    if folder is not None and (folder / MODEL_FILE).exists():
        return folder / MODEL_FILE
    return SHIPPED / MODEL_FILE


class Silero:
    """A loaded model.

    Args:
        path: of ``silero_8k.onnx``; the shipped one when absent.

    Raises:
        DetectorModelError: the file is missing or is not the one that this version was made for.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or SHIPPED / MODEL_FILE
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DetectorModelError(
                f"the speech model {path} cannot be read ({error.strerror}): reinstall Callshield"
            ) from None
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256:
            raise DetectorModelError(
                f"the speech model {path} is not the one of this version (sha256 {found[:12]}…, "
                f"expected {SHA256[:12]}…): reinstall Callshield"
            )
        options = onnxruntime.SessionOptions()
        # One thread: the cores belong to the calls.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Batches of every size: an arena would keep the largest one's memory for ever.
        options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            self.probabilities(np.zeros((1, 1, WINDOW_SAMPLES), np.float32), blank(1))
        except Exception as error:  # onnxruntime raises a class of its own for each fault
            raise DetectorModelError(
                f"the speech model {path} cannot be run ({type(error).__name__}): reinstall "
                "Callshield"
            ) from None

    def probabilities(
        self, windows: NDArray[np.float32], memory: Memory
    ) -> tuple[NDArray[np.float32], Memory]:
        """Probability of speech in consecutive windows of several calls.

        Args:
            windows: ``(calls, windows, 288)`` float32 from :func:`cut_windows`.
            memory: of those calls.

        Returns:
            ``(calls, windows)`` float32, 0..1, and the memory after the last window.
        """
        found = self._session.run(
            ["speech", "hidden_after", "cell_after"],
            {"windows": windows, "hidden": memory.hidden[None], "cell": memory.cell[None]},
        )
        speech, hidden, cell = (np.asarray(f, dtype=np.float32) for f in found)
        return speech, Memory(hidden[0], cell[0])
