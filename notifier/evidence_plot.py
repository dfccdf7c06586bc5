"""A call at a glance: waveform and loudness of both sides, risk level, numbered events.

Everything is drawn with lines and areas, so that it stays sharp in print and no plotting library is
needed where packages are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from fpdf import FPDF
from numpy.typing import NDArray

from notifier.evidence_texts import Texts

#: Columns over the whole width: finer than a printer's dot at 600 dpi is not needed.
COLUMNS = 1200
_QUIETEST_DBFS = -70.0
_CALLER, _AGENT = (150, 40, 40), (40, 80, 150)
_LEVELS = ((200, 225, 200), (250, 225, 150), (245, 175, 110), (225, 100, 90))
_GREY, _INK, _RULE = (120, 120, 120), (30, 30, 30), (205, 205, 205)
_LABEL_ROWS = 3
_MIN_LABEL_MM = 5.0
#: Ticks of the axis: at most so many, at one of these distances, seconds.
_MOST_TICKS = 10
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


class Side(Protocol):
    """One side of a call, column by column."""

    @property
    def low(self) -> NDArray[np.float32]: ...

    @property
    def high(self) -> NDArray[np.float32]: ...

    @property
    def rms_dbfs(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Sound:
    """What the recording shows."""

    caller: Side
    agent: Side
    began_ts: float
    length_s: float
    gaps: Sequence[tuple[float, float]]
    """Within the recording, seconds from its beginning: paused, or lost."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A numbered event."""

    number: int
    ts: float


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn."""

    begin_ts: float
    end_ts: float
    sound: Sound | None
    levels: Sequence[tuple[float, int]]
    """When the level became which."""
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class _Area:
    """Of one row, in mm."""

    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.top + self.height


class Plot:
    """Draws one picture.

    Args:
        pdf: with a font set.
        picture: what to draw.
        texts: for the labels.
    """

    def __init__(self, pdf: FPDF, picture: Picture, texts: Texts) -> None:
        self._pdf = pdf
        self._picture = picture
        self._texts = texts
        self._span_s = max(picture.end_ts - picture.begin_ts, 1.0)

    def draw(self, left: float, top: float, width: float) -> float:
        """Draw from ``top`` on, all in mm.

        Returns:
            Where it ends.
        """
        pdf, texts = self._pdf, self._texts
        label_mm = 18.0
        at = top + 4.2 * _LABEL_ROWS
        rows: list[_Area] = []

        def row(height: float, label: str) -> _Area:
            nonlocal at
            area = _Area(left + label_mm, at, width - label_mm, height)
            rows.append(area)
            self._label(left, area, label, label_mm)
            at += height + 3.0
            return area

        sound = self._picture.sound
        if sound is not None:
            self._wave(row(20.0, texts.say("report.caller")), sound.caller, sound, _CALLER)
            self._wave(row(20.0, texts.say("report.agent")), sound.agent, sound, _AGENT)
            self._loudness(row(17.0, texts.say("report.loudness")), sound)
        self._risk(row(15.0, texts.say("report.risk")))
        bottom = rows[-1].bottom
        self._marks(rows[0], top, bottom)
        self._axis(rows[-1], bottom)
        pdf.set_draw_color(*_INK)
        pdf.set_text_color(*_INK)
        return bottom + 7.0

    def _x(self, area: _Area, ts: float) -> float:
        share = (ts - self._picture.begin_ts) / self._span_s
        return area.left + area.width * min(max(share, 0.0), 1.0)

    def _label(self, left: float, area: _Area, label: str, width: float) -> None:
        pdf = self._pdf
        pdf.set_draw_color(*_RULE)
        pdf.set_line_width(0.15)
        pdf.rect(area.left, area.top, area.width, area.height)
        pdf.set_font_size(7)
        pdf.set_text_color(*_GREY)
        pdf.set_xy(left, area.top + 1.0)
        pdf.multi_cell(width - 2.0, 3.4, label, align="L")

    # ------------------------------------------------------------------------------------ sound

    def _hatch(self, area: _Area, begin_ts: float, end_ts: float) -> None:
        """Mark a stretch that was not recorded."""
        x0, x1 = self._x(area, begin_ts), self._x(area, end_ts)
        if x1 - x0 < 0.1:
            return
        pdf = self._pdf
        pdf.set_draw_color(*_RULE)
        pdf.set_line_width(0.12)
        with pdf.rect_clip(x0, area.top, x1 - x0, area.height):
            step, x = 1.8, x0 - area.height
            while x < x1:
                pdf.line(x, area.bottom, x + area.height, area.top)
                x += step

    def _unrecorded(self, sound: Sound) -> Iterator[tuple[float, float]]:
        began, ended = sound.began_ts, sound.began_ts + sound.length_s
        yield self._picture.begin_ts, began
        for begin_s, end_s in sound.gaps:
            yield began + begin_s, began + end_s
        yield ended, self._picture.end_ts

    def _columns(self, area: _Area, sound: Sound, count: int) -> list[float]:
        x0 = self._x(area, sound.began_ts)
        x1 = self._x(area, sound.began_ts + sound.length_s)
        return [x0 + (x1 - x0) * (k + 0.5) / count for k in range(count)]

    def _wave(self, area: _Area, side: Side, sound: Sound, ink: tuple[int, int, int]) -> None:
        for begin_ts, end_ts in self._unrecorded(sound):
            self._hatch(area, begin_ts, end_ts)
        pdf, middle = self._pdf, area.top + area.height / 2
        scale = area.height / 2 - 0.5
        xs = self._columns(area, sound, len(side.low))
        tops = [(x, middle - scale * float(v)) for x, v in zip(xs, side.high, strict=True)]
        bottoms = [(x, middle - scale * float(v)) for x, v in zip(xs, side.low, strict=True)]
        pdf.set_draw_color(*ink)
        pdf.set_fill_color(*ink)
        pdf.set_line_width(0.05)
        pdf.polygon([*tops, *reversed(bottoms)], style="DF")

    def _loudness(self, area: _Area, sound: Sound) -> None:
        pdf = self._pdf
        for begin_ts, end_ts in self._unrecorded(sound):
            self._hatch(area, begin_ts, end_ts)
        pdf.set_font_size(5.5)
        for level in (-20.0, -40.0, -60.0):
            y = area.top + area.height * level / _QUIETEST_DBFS
            pdf.set_draw_color(*_RULE)
            pdf.set_line_width(0.1)
            pdf.line(area.left, y, area.left + area.width, y)
            pdf.set_text_color(*_GREY)
            pdf.text(area.left - 5.0, y + 0.8, f"{level:.0f}")
        for side, ink in ((sound.agent, _AGENT), (sound.caller, _CALLER)):
            levels = [max(float(v), _QUIETEST_DBFS) for v in _smooth(side.rms_dbfs)]
            xs = self._columns(area, sound, len(levels))
            points = [
                (x, area.top + area.height * level / _QUIETEST_DBFS)
                for x, level in zip(xs, levels, strict=True)
            ]
            pdf.set_draw_color(*ink)
            pdf.set_line_width(0.2)
            pdf.polyline(points)

    # ------------------------------------------------------------------------------------ level

    def _risk(self, area: _Area) -> None:
        pdf, texts = self._pdf, self._texts
        known = [(max(ts, self._picture.begin_ts), level) for ts, level in self._picture.levels]
        ends = [*(ts for ts, _ in known[1:]), self._picture.end_ts]
        pdf.set_line_width(0.15)
        for (ts, level), end_ts in zip(known, ends, strict=True):
            x0, x1 = self._x(area, ts), self._x(area, min(end_ts, self._picture.end_ts))
            height = area.height * (0.08 + 0.92 * level / 3)
            pdf.set_fill_color(*_LEVELS[min(max(level, 0), 3)])
            if x1 > x0:
                pdf.rect(x0, area.bottom - height, x1 - x0, height, style="F")
        pdf.set_font_size(5.5)
        pdf.set_text_color(*_GREY)
        pdf.set_draw_color(*_RULE)
        for level in (1, 2, 3):
            y = area.bottom - area.height * (0.08 + 0.92 * level / 3)
            pdf.line(area.left, y, area.left + area.width, y)
            pdf.text(area.left + 0.8, y + 2.2, texts.level(level))

    # ----------------------------------------------------------------------------- marks, axis

    def _marks(self, first: _Area, top: float, bottom: float) -> None:
        """Numbers above, each with its line; close ones on different rows."""
        pdf = self._pdf
        free = [-math.inf] * _LABEL_ROWS
        pdf.set_line_width(0.12)
        for mark in self._picture.marks:
            x = self._x(first, mark.ts)
            row = next((k for k in range(_LABEL_ROWS) if x - free[k] >= _MIN_LABEL_MM), None)
            row = min(range(_LABEL_ROWS), key=free.__getitem__) if row is None else row
            free[row] = x
            y = top + 4.2 * row
            pdf.set_draw_color(*_GREY)
            with pdf.local_context():
                pdf.set_dash_pattern(dash=0.7, gap=0.7)
                pdf.line(x, y + 3.6, x, bottom)
            pdf.set_fill_color(255, 255, 255)
            pdf.set_draw_color(*_INK)
            pdf.ellipse(x - 1.8, y, 3.6, 3.6, style="DF")
            pdf.set_font_size(6)
            pdf.set_text_color(*_INK)
            text = str(mark.number)
            pdf.text(x - pdf.get_string_width(text) / 2, y + 2.55, text)

    def _axis(self, area: _Area, bottom: float) -> None:
        pdf = self._pdf
        step = next((s for s in _STEPS_S if self._span_s / s <= _MOST_TICKS), _STEPS_S[-1])
        pdf.set_font_size(6)
        pdf.set_text_color(*_GREY)
        pdf.set_draw_color(*_GREY)
        at_s = 0
        while at_s <= self._span_s:
            x = self._x(area, self._picture.begin_ts + at_s)
            pdf.line(x, bottom, x, bottom + 1.0)
            text = offset(at_s)
            pdf.text(x - pdf.get_string_width(text) / 2, bottom + 3.8, text)
            at_s += step


def offset(seconds: float) -> str:
    """Seconds from the beginning, as ``1:02:05`` or ``2:05``."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    rest = f"{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def _smooth(levels: NDArray[np.float32], width: int = 5) -> list[float]:
    """The loudest of a few neighbours: a line that can be read."""
    values = [float(v) for v in levels]
    half = width // 2
    return [max(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]
