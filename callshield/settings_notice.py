"""``[notice]`` and ``[callers]``: what the caller hears of us, may choose, and is spared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION

Language = Literal["ko", "en", "zh", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
#: A number as a PBX writes it; ``*`` at the end stands for any rest.
Number = Annotated[str, Field(pattern=r"^\+?[0-9*#]{1,32}$")]
#: Settings with a key, and what the key does; where both are set, consent is asked for first.
KEYS = {"consent_key": "consent", "objection_key": "objection"}
_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_KEY = r"^[0-9*#]?$"
PROMPT_ID = re.compile(r"[a-z0-9_]{1,64}")


#: What people and networks write between digits (RFC 3966: visual separators).
_SEPARATORS = re.compile(r"[ ().\-]")


def in_list(number: str, numbers: list[str], country_code: str = "") -> bool:
    """True when a number is one of a list, or begins as one of its ``012*`` says.

    Args:
        number: as the network showed it.
        numbers: the list.
        country_code: of numbers without ``+``: ``+82107``, ``82107`` and ``107`` are then one, as
            are ``+8210…`` and ``010…``; ``""``: only the number as it is written.
    """
    plain = _SEPARATORS.sub("", number)
    written = {plain}
    digits = plain.removeprefix("+")
    if country_code and digits.startswith(country_code) and len(digits) > len(country_code):
        national = digits.removeprefix(country_code)
        written |= {digits, f"+{digits}", national, f"0{national}"}
    elif country_code and digits:
        abroad = f"{country_code}{digits.removeprefix('0')}"
        written |= {abroad, f"+{abroad}"}
    return bool(plain) and any(
        any(one.startswith(wanted[:-1]) for one in written)
        if wanted.endswith("*")
        else wanted in written
        for wanted in numbers
    )


class NoticeSettings(BaseModel):
    """``[notice]``: what the caller hears before anything is analysed."""

    model_config = SECTION

    language: Language = "ko"
    """Language of the announcements."""
    languages: dict[Number, Language] = {}
    """Language by the number that the caller dialled, e.g. ``{"0215990110" = "en"}``; a ``*`` at
    its end stands for any rest."""
    called_number_header: str = Field("P-Called-Party-ID", pattern=_HEADER)
    """Header of the INVITE with the number that the caller dialled (RFC 7315 section 4.2); To where
    it is absent."""
    chosen_languages: list[Language] = []
    """Languages between which callers choose at the PBX, which says so in ``language_header``."""
    language_header: str = Field("X-Callshield-Language", pattern=_HEADER)
    """Header in which a PBX that attests notices names the language that the caller chose."""
    place: Literal["answer", "before_ringing", "early_media", "upstream"] = "answer"
    """When callers hear the notice: when the agent has answered; in a call that we answer for it,
    before the agent's phone rings; as early media before it rings (a PBX without ``100rel``, and a
    call without an offer: on answer); or the PBX plays it and says so (``upstream``; a call of
    which it does not: on answer). Whom an agent calls hears it on answer."""
    prompts: list[str] = ["abuse_prevention", "recording"]
    """Ids of the prompts, in order; with a key, ``ID_objection`` or ``ID_consent`` instead of
    ``ID`` where that one names just this key."""
    closing: str = "closing"
    """Id of the prompt that the caller hears after *end*."""
    warnings: list[str] = ["warning_1", "warning_2", "warning_3"]
    """Ids of the graded warnings; the last one is repeated."""
    prompt_dir: Path | None = None
    """A folder of one's own with ``<language>/<id>.wav`` (8 or 16 kHz, 16 bit, mono), perhaps
    ``<id>.16k.wav``, and ``manifest.toml``; the shipped prompts when absent. ``callshield prompts
    check`` says whether they will do."""
    agent_hears: Literal["tone", "prompt", "nothing"] = "tone"
    """What the agent hears, besides the caller, while the caller hears an announcement: a soft
    tone, the announcement itself, 18 dB down, or nothing (the screen tells of it)."""
    upstream_header: str = Field("X-Callshield-Notice", pattern=_HEADER)
    """Header in which a trusted PBX names the prompt ids it already played, each with its version
    where it says one: ``abuse_prevention;v=2,recording;v=1``."""
    objection_key: str = Field("", pattern=_KEY)
    """Key with which the caller objects, while the notice plays or ``key_window_s`` after it: the
    call goes on, and is neither analysed nor recorded. Until then neither begins. The shipped
    notices name 9; for another key yours has to."""
    consent_key: str = Field("", pattern=_KEY)
    """Key without which the call is neither analysed nor recorded; the shipped notices name 1, for
    another key yours has to."""
    key_window_s: float = Field(5.0, ge=0, le=30)
    """How long after the notice a key still counts."""
    announce_resumed: bool = False
    """Say *recording resumed* to the caller after a pause, before anything is recorded again."""

    @field_validator("prompts")
    @classmethod
    def _at_least_one(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one prompt: without a notice nothing may be analysed")
        return value

    @field_validator("warnings")
    @classmethod
    def _at_least_one_warning(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("at least one warning prompt")
        return value

    @field_validator("prompts", "warnings")
    @classmethod
    def _are_ids(cls, value: list[str]) -> list[str]:
        for item in value:
            if not PROMPT_ID.fullmatch(item):
                raise ValueError("prompt ids of small letters, digits and _")
        return value

    @model_validator(mode="after")
    def _keys_differ(self) -> NoticeSettings:
        if self.objection_key and self.objection_key == self.consent_key:
            raise ValueError("another consent_key than objection_key")
        return self

    def language_of(self, dialled: str, chosen: str = "", country_code: str = "") -> Language:
        """Language of one call's announcements.

        Args:
            dialled: number that the caller dialled; ``""`` when nobody says.
            chosen: the caller's own choice, as a trusted PBX names it.
            country_code: see :func:`in_list`.
        """
        for language in self.chosen_languages:
            if chosen.strip().lower() == language:
                return language
        if dialled in self.languages:
            return self.languages[dialled]
        for number in sorted(self.languages, key=len, reverse=True):
            if in_list(dialled, [number], country_code):
                return self.languages[number]
        return self.language

    @property
    def keys(self) -> dict[str, str]:
        """The keys that are set, by the setting's name, in the order of :data:`KEYS`."""
        return {name: key for name in KEYS if (key := getattr(self, name))}

    @property
    def spoken(self) -> tuple[Language, ...]:
        """Every language that an announcement may be in, the usual one first."""
        others = {*self.languages.values(), *self.chosen_languages} - {self.language}
        return (self.language, *sorted(others))


class CallerSettings(BaseModel):
    """``[callers]``: callers with whom nothing is done automatically; no number is stored."""

    model_config = SECTION

    never_automatic: list[Number] = []
    """Calling numbers that only a person warns or ends: emergency services, authorities; a ``*`` at
    the end stands for any rest. ``+82``, ``82`` and ``0`` before a number
    (``ringback.country_code``) make no difference."""
    vulnerable_header: str = Field("X-Callshield-Vulnerable", pattern=_HEADER)
    """Header in which a PBX that attests notices marks a vulnerable customer (``yes``): only a
    person warns or ends."""
    relay_services: list[Number] = []
    """Calling numbers of relay services for people who hear or speak badly (Korea: 107). An
    operator speaks for the caller: no sound is judged, and nothing is done automatically."""
