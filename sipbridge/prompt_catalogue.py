"""Announcements on disk: which exist, their version, hash and length, and what each one tells.

A prompt folder holds ``<language>/<id>.wav`` (8 or 16 kHz, 16 bit, mono), where there is one
``<language>/<id>.16k.wav`` (16 kHz) for legs with G.722 or Opus, ``common/<id>.wav`` for sounds
without words, and ``manifest.toml`` that names version and text. The WAV file itself is the truth:
its hash and length are read from it, and must agree with the manifest's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from callshield.errors import SetupError
from callshield.settings import Settings
from callshield.settings_notice import KEYS, Language
from sipbridge.notice_law import check_notice
from sipbridge.prompt_manifest import Manifest, ManifestEntry, Says, read_manifest
from sipbridge.wav_file import Wav, read_wav

#: The prompts that ship with Callshield.
SHIPPED = Path(__file__).parent / "prompts"
#: The two files of one prompt are the same recording: they may differ by this much, seconds.
MAX_DIFFERENCE_S = 0.1


@dataclass(frozen=True, slots=True)
class WideFile:
    """The same words at 16 kHz."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One announcement that can be played."""

    prompt_id: str
    language: str
    path: Path
    version: str
    sha256: str
    duration_s: float
    """As long as the other file, see :data:`MAX_DIFFERENCE_S`."""
    wide: WideFile | None = None
    """For legs with G.722 or Opus."""
    text: str = ""
    """What it says, as the manifest has it."""
    says: Says = field(default_factory=Says)
    """What that tells the caller."""
    instead_of: tuple[str, ...] = ()
    """Ids in ``notice.prompts`` that this one is played for; empty: its own."""
    own: bool = False
    """From a folder of the operator's own."""
    rate_hz: int = 8000
    """Of :attr:`path`."""

    @property
    def names(self) -> frozenset[str]:
        """See :attr:`Says.names`."""
        return self.says.names

    @property
    def purposes(self) -> tuple[str, ...]:
        """See :attr:`Says.purposes`; in the order of the alphabet."""
        return tuple(sorted(self.says.purposes))


class PlayedFiles(TypedDict):
    """For :class:`callshield.messages_media.PlayPrompts`."""

    files: list[str]
    sha256: list[str]
    wide_files: list[str]
    wide_sha256: list[str]


def files_of(prompts: Sequence[Prompt]) -> PlayedFiles:
    """The files of announcements that are played one after the other, and what they must hold."""
    wide = [prompt.wide or WideFile(Path(), "") for prompt in prompts]
    return {
        "files": [str(prompt.path) for prompt in prompts],
        "sha256": [prompt.sha256 for prompt in prompts],
        "wide_files": [str(one.path) if one.sha256 else "" for one in wide],
        "wide_sha256": [one.sha256 for one in wide],
    }


class PromptFolder:
    """The shipped prompts, or a folder of the operator's own.

    Args:
        path: of the folder.
        shipped: these are ours, though the folder is a copy.

    Raises:
        SetupError: its manifest cannot be read.
    """

    def __init__(self, path: Path, *, shipped: bool = False) -> None:
        self.path = path
        self._shipped = shipped
        self.loaded: dict[tuple[str, str], Prompt] = {}
        """What :meth:`load` gave, by language and id."""
        self.manifest: Manifest = read_manifest(path)

    @property
    def shipped(self) -> bool:
        """These are ours, wherever the path leads round."""
        return self._shipped or self.path.resolve() == SHIPPED.resolve()

    def file(self, language: str, prompt_id: str) -> Path:
        """Where a prompt is, or would be."""
        return self.path / language / f"{prompt_id}.wav"

    def has(self, language: str, prompt_id: str) -> bool:
        """There is such a file."""
        return self.file(language, prompt_id).exists()

    def found(self) -> list[tuple[str, str]]:
        """Language and id of every prompt that is there."""
        files = self.path.glob("*/*.wav")
        return sorted(
            (file.parent.name, file.stem) for file in files if not file.stem.endswith(".16k")
        )

    def entry(self, language: str, prompt_id: str) -> ManifestEntry:
        """What the manifest says of a prompt."""
        return self.manifest.get((language, prompt_id), ManifestEntry())

    def load(self, language: str, prompt_id: str) -> Prompt:
        """Find and check one prompt.

        Args:
            language: ``ko``, ``en``, ``zh``, ``ja`` or ``common``.
            prompt_id: small letters, digits and ``_``.

        Raises:
            SetupError: missing, cut off, not 8 or 16 kHz 16-bit mono, not the file that the
                manifest names, or its two files are not the same recording.
        """
        path = self.file(language, prompt_id)
        entry = self.entry(language, prompt_id)
        wav, digest = _checked(path, entry.sha256)
        wide_path, wide = path.with_suffix(".16k.wav"), None
        if wide_path.exists():
            wide_wav, wide_digest = _checked(wide_path, entry.sha256_16k)
            _check_pair(path, wav, wide_path, wide_wav)
            wide = WideFile(wide_path, wide_digest)
        found = Prompt(
            prompt_id,
            language,
            path,
            entry.version or digest[:12],
            digest,
            wav.duration_s,
            wide,
            entry.text,
            entry.says,
            own=not self.shipped,
            rate_hz=wav.rate_hz,
        )
        self.loaded[language, prompt_id] = found
        return found


def _checked(path: Path, expected: str) -> tuple[Wav, str]:
    wav = read_wav(path)
    if expected and expected != wav.sha256:
        raise SetupError(
            f"the prompt {path} is not the file that manifest.toml names (sha256 differs): "
            "restore it, or correct the manifest"
        )
    return wav, wav.sha256


def _check_pair(path: Path, wav: Wav, wide_path: Path, wide: Wav) -> None:
    if wide.rate_hz != 16000:
        raise SetupError(
            f"the prompt {wide_path} has {wide.rate_hz} Hz: a file named .16k.wav has 16000; "
            "convert it anew from the original, or remove it"
        )
    if abs(wide.duration_s - wav.duration_s) > MAX_DIFFERENCE_S:
        raise SetupError(
            f"the prompt {wide_path} lasts {wide.duration_s:.2f} s and {path.name} "
            f"{wav.duration_s:.2f} s: make both of one recording, or remove the first"
        )


def load_prompt(folder: Path, language: str, prompt_id: str) -> Prompt:
    """:meth:`PromptFolder.load` of one prompt alone."""
    return PromptFolder(folder).load(language, prompt_id)


@dataclass(frozen=True, slots=True)
class HelpPrompts:
    """What is said when somebody joins a call or takes it over."""

    joined: Prompt
    handing_over: Prompt
    hold_on: Prompt
    handed_over: Prompt


class PromptSet:
    """The configured announcements in one language.

    Args:
        settings: the node's configuration.
        own: the configured folder.
        shipped: ours; the same where none is configured.
        language: of all of them.

    Raises:
        SetupError: one is missing or has the wrong format.
    """

    def __init__(
        self, settings: Settings, own: PromptFolder, shipped: PromptFolder, language: Language
    ) -> None:
        notice = settings.notice
        self._folder, self._shipped, self._language = own, shipped, language
        self._keys = notice.keys
        self.notice = self._the_notice(notice.prompts)
        self.closing = self._own(notice.closing)
        self.warnings = tuple(self._own(p) for p in notice.warnings)
        # Without a helper's phone nobody needs them: a folder of one's own may lack them then.
        self.help = (
            HelpPrompts(
                *(self._own(p) for p in ("joined", "handing_over", "hold_on", "handed_over"))
            )
            if settings.supervisors
            else None
        )
        self.call_back = self._late("call_back", wanted=bool(settings.callbacks.within_s))
        self.objection_accepted = self._late(
            "objection_accepted", wanted=bool(notice.objection_key)
        )
        on_demand = settings.recording.enabled and settings.recording.begin == "on_request"
        self.recording = self._own("recording") if on_demand else None
        self.resumed = self._late("recording_resumed", wanted=notice.announce_resumed)

    @property
    def all(self) -> tuple[Prompt, ...]:
        """Every one of them, in the order in which a call may play them."""
        help_ = self.help
        joining = (
            (help_.joined, help_.handing_over, help_.hold_on, help_.handed_over) if help_ else ()
        )
        late = (self.call_back, self.objection_accepted, self.recording, self.resumed)
        some = (*self.notice, *self.warnings, self.closing, *joining, *(p for p in late if p))
        return tuple(dict.fromkeys(some))

    @property
    def unsaid(self) -> list[str]:
        """Which of ``notice.objection_key`` and ``consent_key`` no notice names."""
        said = {(prompt.says.key_for, prompt.says.key) for prompt in self.notice}
        return [name for name, key in self._keys.items() if (KEYS[name], key) not in said]

    def attested_purposes(self, attested: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """What the PBX's own announcements told of purposes: what the manifest says of these ids.

        Of another version than the manifest's nothing is known.

        Args:
            attested: versions by id; empty where the PBX names none.
        """
        entries = {one: self._folder.entry(self._language, one) for one in attested}
        return {
            one: tuple(sorted(entry.says.purposes))
            for one, entry in entries.items()
            if attested[one] in ("", entry.version)
        }

    def _the_notice(self, prompt_ids: list[str]) -> tuple[Prompt, ...]:
        """What is played for these; none beside another one that says the same."""
        kept = {prompt_id: self._naming_the_key(prompt_id) for prompt_id in prompt_ids}
        stands_for = {prompt_id: [prompt_id] for prompt_id in kept}
        for prompt_id in prompt_ids:
            for other, prompt in kept.items():
                if other != prompt_id and prompt_id in prompt.says.covers and prompt_id in kept:
                    del kept[prompt_id]
                    stands_for[other] += stands_for[prompt_id]
                    break
        return tuple(
            replace(prompt, instead_of=tuple(stands_for[prompt_id]))
            for prompt_id, prompt in kept.items()
        )

    def _naming_the_key(self, prompt_id: str) -> Prompt:
        """A prompt of the notice, or its variant that names the key that is configured."""
        for name, key in self._keys.items():
            variant = f"{prompt_id}_{KEYS[name]}"
            says = self._folder.entry(self._language, variant).says
            fits = (says.key_for, says.key) == (KEYS[name], key)
            if fits and self._folder.has(self._language, variant):
                return self._folder.load(self._language, variant)
        return self._own(prompt_id)

    def _own(self, prompt_id: str) -> Prompt:
        return self._folder.load(self._language, prompt_id)

    def _late(self, prompt_id: str, *, wanted: bool) -> Prompt | None:
        """One that came later than many a folder of one's own: then ours is played."""
        if not wanted:
            return None
        own = self._folder.has(self._language, prompt_id)
        return (self._folder if own else self._shipped).load(self._language, prompt_id)


class Prompts:
    """The configured announcements in every language that a caller may hear, checked at start.

    Args:
        settings: the node's configuration.
        own: a copy of the folder that it names.
        shipped: a copy of ours.

    Raises:
        SetupError: one is missing or has the wrong format, or the notice does not tell what the
            preset of ``[law]`` wants told.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        own: PromptFolder | None = None,
        shipped: PromptFolder | None = None,
    ) -> None:
        notice = settings.notice
        shipped = shipped or PromptFolder(SHIPPED)
        own = own or (PromptFolder(notice.prompt_dir) if notice.prompt_dir else shipped)
        self.folders = (own,) if own is shipped else (own, shipped)
        """What they were loaded from."""
        self._sets: dict[str, PromptSet] = {
            language: PromptSet(settings, own, shipped, language) for language in notice.spoken
        }
        for language, prompts in self._sets.items():
            check_notice(settings, language, prompts.notice)
        self.usual = self._sets[notice.language]
        tone = own if own.has("common", "notice_tone") else shipped
        self.notice_tone = tone.load("common", "notice_tone")
        rings = own if own.has("common", "ringing") else shipped
        self.ringing = (
            rings.load("common", "ringing")
            if notice.place in ("before_ringing", "early_media")
            else None
        )
        """What callers hear while a phone rings; ``None`` where they hear the PBX's own."""
        self.keys_unsaid = self._unsaid(settings, own)
        """Why callers cannot know of the keys that decide for them; empty where they can, or where
        no key is configured."""

    def of(self, language: str) -> PromptSet:
        """The announcements in one of :attr:`NoticeSettings.spoken`; else in the usual language."""
        return self._sets.get(language, self.usual)

    @property
    def all(self) -> tuple[Prompt, ...]:
        """Every announcement that a call may play."""
        every = (prompt for one in self._sets.values() for prompt in one.all)
        tones = (self.notice_tone, *([self.ringing] if self.ringing else []))
        return tuple(dict.fromkeys((*every, *tones)))

    def _unsaid(self, settings: Settings, own: PromptFolder) -> str:
        if any(peer.attests_notice for peer in settings.peers):
            return ""  # the PBX's notice may name it
        missing = {language: one.unsaid for language, one in self._sets.items() if one.unsaid}
        if not missing:
            return ""
        keys = sorted({name for names in missing.values() for name in names})
        named = sorted(
            f"{says.key} for {says.key_for}"
            for says in {entry.says for entry in own.manifest.values()}
            if says.key
        )
        set_ = " and ".join(f'notice.{name} = "{settings.notice.keys[name]}"' for name in keys)
        folder = settings.notice.prompt_dir or "a folder of your own (notice.prompt_dir)"
        return (
            f"{set_} is set, and no notice in {', '.join(sorted(missing))} names it "
            f"(named are: {', '.join(dict.fromkeys(named)) or 'none'}): callers cannot know of it. "
            f"Put a notice that names it into {folder}, and say so in its manifest.toml "
            f'(key = "{settings.notice.keys[keys[0]]}", key_for = "{KEYS[keys[0]]}")'
        )
