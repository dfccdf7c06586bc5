"""The printable report of a package: PDF, in Korean, English, Chinese or Japanese.

Facts of the call, a picture of all of it with numbered events, what happened in order, the
announcements that the caller heard with their hashes, who was told when, what was done,
the redacted transcript, and who opened the material. Nobody's name or number stands in it, and no
score.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec
from fpdf import FPDF
from fpdf.enums import TableBordersLayout, WrapMode
from fpdf.fonts import FontFace
from fpdf.table import Table

from notifier.chain import Head
from notifier.evidence_font import Faces
from notifier.evidence_plot import Mark, Picture, Plot, Sound, offset
from notifier.evidence_record import CallRecord
from notifier.evidence_texts import Texts
from notifier.evidence_timeline import Moment, Timeline, categories, end_reason, role_name

# The library writes characters that a font lacks into its log: they would be what somebody said.
for _name in ("fpdf", "fontTools"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_FAMILY = "report"
_MARGIN_MM = 15.0
_INK, _GREY, _BAND, _RULE = (25, 25, 25), (110, 110, 110), (235, 238, 242), (205, 205, 205)
#: Of table cells, mm: above, right, below, left.
_PADDING = (0.5, 1.0, 0.7, 1.0)
#: More numbers than this cannot be told apart in the picture; further events are only listed.
_MOST_MARKS = 60
#: Written without spaces: broken anywhere.
_UNSPACED = ("zh", "ja")


class Spoken(Protocol):
    """An utterance of the transcript."""

    @property
    def start_s(self) -> float: ...

    @property
    def language(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the caller said, redacted."""

    spoken: Sequence[Spoken]
    model: str
    why_none: str = ""
    """Why there is none; ``""`` where there is one."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report is made of."""

    record: CallRecord
    timeline: Timeline
    sound: Sound | None
    transcript: Transcript
    package_id: str
    made_ts: float
    node: str
    key_id: str
    head: Head
    zone: str
    """IANA name."""


def make_report(report: Report, texts: Texts, faces: Faces) -> bytes:
    """The PDF."""
    return _Pages(report, texts, faces).made()


class _Pdf(FPDF):
    """With a line at the foot of each page."""

    def __init__(self, foot: str, page: str) -> None:
        super().__init__(format="A4")
        self._foot, self._page = foot, page

    def footer(self) -> None:
        self.set_y(-11)
        self.set_font(_FAMILY, size=7)
        self.set_text_color(*_GREY)
        half = self.epw / 2
        self.cell(half, 5, self._foot)
        number = self._page.format(page=self.page_no(), pages=self.str_alias_nb_pages)
        self.cell(half, 5, number, align="R")


class _Pages:
    def __init__(self, report: Report, texts: Texts, faces: Faces) -> None:
        self._report, self._texts = report, texts
        self._zone = ZoneInfo(report.zone)
        say = texts.say
        page = str(texts.tables["report"]["page"])
        pdf = self._pdf = _Pdf(f"{say('report.package')} {report.package_id}", page)
        pdf.set_margin(_MARGIN_MM)
        pdf.set_auto_page_break(True, 16.0)
        for style, face in (("", faces.regular), ("B", faces.bold)):
            pdf.add_font(_FAMILY, style, face.path, collection_font_number=face.number)
        pdf.set_title(say("report.title"))
        pdf.set_lang(texts.language)
        pdf.set_creator("Callshield")
        pdf.set_creation_date(datetime.fromtimestamp(report.made_ts, UTC))
        pdf.set_font(_FAMILY, size=9)

    def made(self) -> bytes:
        pdf, report, say = self._pdf, self._report, self._texts.say
        timeline = report.timeline
        numbers = _numbers(timeline.moments)
        pdf.add_page()
        self._title()
        self._facts()
        self._heading(say("report.plot"))
        self._note(say("report.plot_note"))
        if report.sound is None:
            self._note(say("report.no_recording"))
        self._picture(numbers)
        self._heading(say("report.moments"))
        self._moments(timeline.moments, numbers)
        self._heading(say("report.notices"))
        self._notices()
        self._heading(say("report.told"))
        self._list(timeline.told, say("report.told_none"))
        self._heading(say("report.actions"))
        self._list(timeline.actions, say("report.actions_none"))
        self._heading(say("report.transcript"))
        self._transcript()
        self._heading(say("report.custody"))
        self._list(timeline.custody, say("report.custody_none"))
        self._heading(say("report.about"))
        self._about()
        return bytes(pdf.output())

    # --------------------------------------------------------------------------------- pieces

    @property
    def _wrap(self) -> WrapMode:
        return WrapMode.CHAR if self._texts.language in _UNSPACED else WrapMode.WORD

    def _when(self, ts: float | None, *, day: bool = False) -> str:
        if ts is None:
            return "–"
        moment = datetime.fromtimestamp(ts, self._zone)
        clock = f"{moment:%H:%M:%S}.{moment.microsecond // 100_000}"
        return f"{moment:%Y-%m-%d} {clock}" if day else clock

    def _after(self, ts: float) -> str:
        return offset(ts - self._report.record.call["started_ts"])

    def _heading(self, text: str) -> None:
        pdf = self._pdf
        # Not alone at the foot of a page.
        if pdf.will_page_break(26):
            pdf.add_page()
        pdf.ln(3)
        pdf.set_font(_FAMILY, "B", 11)
        pdf.set_text_color(*_INK)
        pdf.cell(0, 7, text, new_x="LMARGIN", new_y="NEXT")
        pdf.set_font(_FAMILY, size=9)

    def _note(self, text: str) -> None:
        pdf = self._pdf
        pdf.set_font(_FAMILY, size=8)
        pdf.set_text_color(*_GREY)
        pdf.multi_cell(0, 4.2, text, align="L", new_x="LMARGIN", new_y="NEXT", wrapmode=self._wrap)
        pdf.set_text_color(*_INK)
        pdf.set_font(_FAMILY, size=9)

    def _title(self) -> None:
        pdf, say = self._pdf, self._texts.say
        pdf.set_font(_FAMILY, "B", 18)
        pdf.set_text_color(*_INK)
        pdf.cell(0, 10, say("report.title"), new_x="LMARGIN", new_y="NEXT")
        self._note(say("report.subtitle"))

    def _facts(self) -> None:
        texts, say, report = self._texts, self._texts.say, self._report
        call, decision = report.record.call, report.record.decision
        kinds = categories(msgspec.json.decode(call["categories"], type=list[str]), texts)
        direction = _direction(report.record)
        self._heading(say("report.facts"))
        self._pairs(
            [
                ("call_id", call["call_id"]),
                ("pbx_call_id", call["pbx_call_id"] or "–"),
                ("agent", call["agent_id"]),
                ("direction", say(f"report.{direction}")),
                ("started", f"{self._when(call['started_ts'], day=True)} ({report.zone})"),
                ("answered", self._when(call["answered_ts"], day=True)),
                ("ended", self._when(call["ended_ts"], day=True)),
                ("length", offset(call["duration_s"])),
                ("end_reason", end_reason(call["end_reason"], texts)),
                ("peak", texts.level(int(call["peak_level"]))),
                ("categories", kinds or say("report.none")),
            ]
        )
        self._heading(say("report.request"))
        by = say("report.approved_by", role=role_name(decision.by_role, texts), token=decision.by)
        self._pairs(
            [
                ("requested", self._when(report.record.request.ts, day=True)),
                ("approved", f"{self._when(decision.ts, day=True)} · {by}"),
                ("made", self._when(report.made_ts, day=True)),
                ("node", report.node),
                ("package", report.package_id),
                ("key", report.key_id),
                ("chain", f"{report.head.last_id}:{report.head.hash}"),
            ]
        )

    def _pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        pdf = self._pdf
        self._rules()
        with pdf.table(
            col_widths=(42, 138),
            first_row_as_headings=False,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            line_height=4.6,
            padding=_PADDING,
            text_align="LEFT",
            wrapmode=self._wrap,
        ) as table:
            for name, value in rows:
                row = table.row()
                row.cell(self._texts.say(f"report.{name}"), style=FontFace(color=_GREY))
                row.cell(value)

    def _rules(self) -> None:
        self._pdf.set_draw_color(*_RULE)
        self._pdf.set_line_width(0.15)

    def _picture(self, numbers: dict[int, int]) -> None:
        pdf, report = self._pdf, self._report
        call, moments = report.record.call, report.timeline.moments
        ended = call["ended_ts"] or max(moment.ts for moment in moments)
        height = 103.0 if report.sound is not None else 40.0
        if pdf.will_page_break(height):
            pdf.add_page()
        picture = Picture(
            begin_ts=call["started_ts"],
            end_ts=ended,
            sound=report.sound,
            levels=report.timeline.levels,
            marks=[
                Mark(numbers[moment.event_id], moment.ts)
                for moment in moments
                if moment.event_id in numbers
            ],
        )
        bottom = Plot(pdf, picture, self._texts).draw(_MARGIN_MM, pdf.get_y(), pdf.epw)
        pdf.set_xy(_MARGIN_MM, bottom)
        pdf.set_font(_FAMILY, size=9)

    def _moments(self, moments: Sequence[Moment], numbers: dict[int, int]) -> None:
        with self._table(("no", "time", "offset", "what"), (11, 24, 17, 128)) as table:
            for moment in moments:
                number = numbers.get(moment.event_id)
                row = table.row()
                row.cell("" if number is None else str(number))
                row.cell(self._when(moment.ts))
                row.cell(self._after(moment.ts))
                row.cell(moment.text)

    @contextmanager
    def _table(self, columns: Sequence[str], widths: tuple[int, ...]) -> Iterator[Table]:
        """A table whose headings come again on every page."""
        pdf = self._pdf
        self._rules()
        with pdf.table(
            col_widths=widths,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            headings_style=FontFace(emphasis="BOLD", fill_color=_BAND, size_pt=8),
            line_height=4.4,
            padding=_PADDING,
            text_align="LEFT",
            wrapmode=self._wrap,
        ) as table:
            heading = table.row()
            for column in columns:
                heading.cell(self._texts.say(f"report.column_{column}"))
            yield table

    def _notices(self) -> None:
        stamps, say = self._report.timeline.notices, self._texts.say
        if not stamps:
            self._note(say("report.notices_none"))
            return
        columns = ("prompt", "version", "language", "begin", "end", "complete")
        with self._table(columns, (56, 22, 18, 30, 30, 24)) as table:
            for stamp in stamps:
                row = table.row()
                row.cell(stamp.prompt)
                row.cell(stamp.version or "–")
                row.cell(stamp.language or "–")
                row.cell(self._when(stamp.started_ts))
                row.cell(self._when(stamp.finished_ts))
                row.cell(say("report.yes" if stamp.complete else "report.no"))
                more = [f"SHA-256 {stamp.sha256}"] if stamp.sha256 else []
                if stamp.attested_by:
                    more.append(say("report.attested", by=stamp.attested_by))
                if stamp.key:
                    more.append(say("report.pressed", key=stamp.key))
                if more:
                    row = table.row()
                    grey = FontFace(color=_GREY, size_pt=7)
                    row.cell(" · ".join(more), colspan=len(columns), style=grey)

    def _list(self, moments: Sequence[Moment], none: str) -> None:
        if not moments:
            self._note(none)
            return
        with self._table(("time", "what"), (40, 140)) as table:
            for moment in moments:
                row = table.row()
                row.cell(self._when(moment.ts, day=True))
                row.cell(moment.text)

    def _transcript(self) -> None:
        transcript, say = self._report.transcript, self._texts.say
        if transcript.why_none:
            self._note(say("report.transcript_none", why=transcript.why_none))
            return
        self._note(say("report.transcript_note", model=transcript.model))
        sound = self._report.sound
        began_ts = sound.began_ts if sound else self._report.record.call["started_ts"]
        with self._table(("time", "offset", "what"), (24, 17, 139)) as table:
            for one in transcript.spoken:
                row = table.row()
                row.cell(self._when(began_ts + one.start_s))
                row.cell(self._after(began_ts + one.start_s))
                row.cell(one.text or "–")

    def _about(self) -> None:
        for line in self._texts.lines("report.about_text"):
            self._note(f"· {line.format(zone=self._report.zone)}")


def _numbers(moments: Sequence[Moment]) -> dict[int, int]:
    """Which events have a number, by their own."""
    marked = [moment.event_id for moment in moments if moment.marked]
    return {event_id: number for number, event_id in enumerate(marked[:_MOST_MARKS], 1)}


def _direction(record: CallRecord) -> str:
    for event in record.events:
        if event.type == "call.started":
            return str(msgspec.json.decode(event.body).get("direction", "inbound"))
    return "inbound"
