"""A prompt's way to a leg, frame by frame, and the proof of when each file was heard.

Pure: it hands out payloads and keeps the times; who sends them and when is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from sipbridge.g711 import SILENCE
from sipbridge.prompt_file import Prompt
from sipbridge.rtp import FRAME_S


class Playout:
    """Some files, one after the other.

    Args:
        play_id: of the request.
        prompts: at least one.
        loop: begin again after the last one, until stopped.
        mix: to be added to relayed audio rather than to replace it.
    """

    __slots__ = ("_file", "_offset", "_playing_until", "_spans", "failed", "frames", "loop", "mix",
                 "play_id", "prompts")  # fmt: skip

    def __init__(self, play_id: int, prompts: Sequence[Prompt], *, loop: bool, mix: bool) -> None:
        self.play_id = play_id
        self.prompts = tuple(prompts)
        self.loop = loop
        self.mix = mix
        self.frames = 0
        """Frames handed out."""
        self.failed = 0
        """Frames that the machine refused to send."""
        self._file = 0
        self._offset = 0
        self._playing_until = 0.0
        self._spans: list[tuple[float, float]] = []

    @property
    def exhausted(self) -> bool:
        """The last frame of the last file was handed out."""
        return self._file >= len(self.prompts)

    def take(self, payload_type: int, samples: int, now: float) -> bytes:
        """The next frame; a file's last one is filled up with silence.

        Args:
            payload_type: 0 or 8; it may change in the middle.
            samples: length of the frame.
            now: monotonic seconds of the send.

        Returns:
            ``samples`` bytes; silence only when :attr:`exhausted`.
        """
        if self.exhausted:
            return SILENCE[payload_type] * samples
        prompt = self.prompts[self._file]
        frame = prompt.encoded[payload_type][self._offset : self._offset + samples]
        # The far end plays one frame after the other: those of a burst are heard in turn.
        begins = max(now, self._playing_until)
        self._playing_until = begins + samples / 8000
        self.frames += 1
        if self._file == len(self._spans):
            self._spans.append((begins, self._playing_until))
        else:
            self._spans[self._file] = (self._spans[self._file][0], self._playing_until)
        self._offset += samples
        if self._offset >= prompt.samples:
            self._offset = 0
            self._file += 1
            if self.loop and self.exhausted:
                self._file = 0
        if len(frame) < samples:
            frame += SILENCE[payload_type] * (samples - len(frame))
        return frame

    def finished(self, now: float) -> bool:
        """Everything was handed out and the last frame's own 20 ms are over."""
        return self.exhausted and now >= self._playing_until - FRAME_S / 10

    def spans(self, now: float, wall_now: float) -> list[tuple[float, float]]:
        """When each begun file was heard, in seconds since the epoch.

        A file that is cut off ends now; a looped one has its first beginning and newest end.

        Args:
            now: monotonic seconds.
            wall_now: the same moment in seconds since the epoch.
        """
        shift = wall_now - now
        return [(begin + shift, max(begin, min(end, now)) + shift) for begin, end in self._spans]

    @property
    def heard(self) -> bool:
        """Nearly all frames left the machine (98 %)."""
        return self.failed * 50 <= self.frames
