"""Language, keys and attestation of the notice, and who is spared: what an INVITE fixes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from callshield.errors import ConfigurationError
from callshield.settings import load_settings
from callshield.settings_notice import in_list
from sipbridge.admission import Admission
from sipbridge.call_plan import CallPlan
from sipbridge.prompt_catalogue import SHIPPED, Prompts
from sipbridge.routing import Route
from sipbridge.sip_message import SipHeaders

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 8\r\n"
)
BASE = """
[[peers]]
name = "pbx"
networks = ["192.0.2.1"]
attests_notice = true

[[peers]]
name = "stranger"
networks = ["192.0.2.2"]

[agents.1001]
uri = "sip:1001@192.0.2.20:5060"
"""


def invite(*headers: str, caller: str = "01012345678", to: str = "1001") -> str:
    lines = [
        "INVITE sip:1001@192.0.2.5 SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1",
        f"From: <sip:{caller}@192.0.2.1>;tag=1",
        f"To: <sip:{to}@192.0.2.5>",
        "Call-ID: 1",
        "CSeq: 1 INVITE",
        *headers,
        "",
        SDP,
    ]
    return "\r\n".join(lines)


def plan(folder: Path, extra: str, message: str, peer: str = "pbx") -> CallPlan:
    config = folder / "callshield.toml"
    # [callers] and [notice] first: a table ends where the next one begins.
    config.write_text(extra + BASE, encoding="utf-8")
    settings = load_settings(config)
    admission = Admission(settings, Prompts(settings))
    (sender,) = [one for one in settings.peers if one.name == peer]
    headers = SipHeaders(message)
    route = admission.route(headers, sender, unavailable="", calls=())
    assert isinstance(route, Route)
    return admission.plan("c0ffee", headers, message, sender, route)


LANGUAGES = """
[notice]
languages = { "0215881234" = "en", "8006*" = "zh" }
chosen_languages = ["ja"]
"""


@pytest.mark.parametrize(
    ("headers", "to", "peer", "language"),
    [
        ((), "1001", "pbx", "ko"),
        ((), "0215881234", "pbx", "en"),
        (("P-Called-Party-ID: <sip:0215881234@pbx>",), "1001", "pbx", "en"),
        (("P-Called-Party-ID: <tel:+82215881234>",), "1001", "pbx", "en"),
        (("P-Called-Party-ID: <sip:80061@pbx>",), "0215881234", "pbx", "zh"),
        (("X-Callshield-Language: ja",), "0215881234", "pbx", "ja"),
        # Not one between which callers choose, or not from one who may say so.
        (("X-Callshield-Language: zh",), "0215881234", "pbx", "en"),
        (("X-Callshield-Language: ja",), "0215881234", "stranger", "en"),
        (("X-Callshield-Language: ../../etc",), "1001", "pbx", "ko"),
    ],
)
def test_every_announcement_of_a_call_is_in_one_language(
    tmp_path: Path, headers: tuple[str, ...], to: str, peer: str, language: str
) -> None:
    made = plan(tmp_path, LANGUAGES, invite(*headers, to=to), peer)
    spoken = {p.language for p in (*made.notice, made.closing, *made.warnings)}
    assert spoken == {language}


@pytest.mark.parametrize(
    ("value", "attested"),
    [
        ("abuse_prevention;v=2, recording", {"abuse_prevention": "2", "recording": ""}),
        ("recording;v=2026-11;lang=ko", {"recording": "2026-11"}),
        ("recording;v=<b>", {"recording": ""}),
        ("recording;v=" + "9" * 40, {"recording": ""}),
        ("warning_1;v=1", {}),
        (";;;,,=", {}),
    ],
)
def test_an_attestation_names_prompts_and_versions(
    tmp_path: Path, value: str, attested: dict[str, str]
) -> None:
    made = plan(tmp_path, "", invite(f"X-Callshield-Notice: {value}"))
    assert dict(made.attested) == attested
    assert {p.prompt_id for p in made.notice} == {"abuse_prevention", "recording"} - set(attested)


def test_a_strangers_attestation_is_worth_nothing(tmp_path: Path) -> None:
    made = plan(tmp_path, "", invite("X-Callshield-Notice: recording;v=1"), "stranger")
    assert dict(made.attested) == {}
    assert len(made.notice) == 2


SPARED = """
[callers]
never_automatic = ["112", "119", "02110*"]
relay_services = ["107"]
"""


@pytest.mark.parametrize(
    ("headers", "caller", "peer", "spared"),
    [
        ((), "01012345678", "pbx", ""),
        ((), "119", "pbx", "never_automatic"),
        ((), "1190", "pbx", ""),
        (("P-Asserted-Identity: <tel:+82107>",), "anonymous", "pbx", "relay_service"),
        # The same number as the network may write it.
        ((), "+82107", "pbx", "relay_service"),
        ((), "82107", "pbx", "relay_service"),
        ((), "0107", "pbx", ""),
        ((), "+82-2-110-1234", "pbx", "never_automatic"),
        ((), "+81107", "pbx", ""),
        ((), "021101234", "pbx", "never_automatic"),
        ((), "107", "pbx", "relay_service"),
        (("P-Asserted-Identity: <sip:107@192.0.2.1>",), "anonymous", "pbx", "relay_service"),
        (("X-Callshield-Vulnerable: yes",), "01012345678", "pbx", "vulnerable"),
        (("X-Callshield-Vulnerable: no",), "01012345678", "pbx", ""),
        (("X-Callshield-Vulnerable: yes",), "01012345678", "stranger", ""),
    ],
)
def test_who_is_spared(
    tmp_path: Path, headers: tuple[str, ...], caller: str, peer: str, spared: str
) -> None:
    assert plan(tmp_path, SPARED, invite(*headers, caller=caller), peer).spared == spared


def test_keys_and_what_is_said_about_them(tmp_path: Path) -> None:
    none = plan(tmp_path, "", invite())
    assert (none.keys.objection, none.keys.consent, none.objection_accepted) == ("", "", None)
    keys = plan(tmp_path, '[notice]\nobjection_key = "9"\nkey_window_s = 2.5\n', invite())
    assert (keys.keys.objection, keys.keys.window_s) == ("9", 2.5)
    assert keys.objection_accepted is not None
    assert keys.objection_accepted.language == "ko"


def test_a_key_that_no_notice_names_is_told(tmp_path: Path) -> None:
    def told(notice: str, *, attests: bool = False) -> str:
        config = tmp_path / "callshield.toml"
        peers = BASE if attests else BASE.replace("attests_notice = true", "")
        config.write_text(f"[notice]\n{notice}\n{peers}", encoding="utf-8")
        return Prompts(load_settings(config)).keys_unsaid

    assert told("") == ""
    assert told('objection_key = "9"') == ""
    assert told('consent_key = "1"') == ""
    other = told('objection_key = "5"')
    assert 'notice.objection_key = "5" is set, and no notice in ko names it' in other
    assert "named are: 1 for consent, 9 for objection" in other
    # Another notice, another meaning, or both at once: nobody says the key then.
    assert "objection_key" in told('objection_key = "9"\nprompts = ["recording"]')
    assert "consent_key" in told('consent_key = "9"')
    both = told('objection_key = "9"\nconsent_key = "1"')
    assert "objection_key" in both
    assert "consent_key" not in both
    assert "in en names it" in told(
        f'objection_key = "9"\nlanguages = {{ "1" = "en" }}\nprompt_dir = "{own_folder(tmp_path)}"'
    )
    assert told('objection_key = "5"', attests=True) == "", "the PBX's notice may name it"


def own_folder(folder: Path) -> Path:
    """Prompts of one's own: Korean with a manifest that states the key, English without."""
    own = folder / "own"
    for language in ("ko", "en"):
        shutil.copytree(SHIPPED / language, own / language)
        for path in (own / language).glob("*_objection*"):
            path.unlink()
    (own / "manifest.toml").write_text(
        '[[prompt]]\nid = "abuse_prevention"\nlanguage = "ko"\nkey = "9"\nkey_for = "objection"\n',
        encoding="utf-8",
    )
    return own


@pytest.mark.parametrize(
    ("notice", "played"),
    [
        ("", ["abuse_prevention", "recording"]),
        ('objection_key = "9"', ["abuse_prevention_objection", "recording"]),
        # One consent is for both, so nobody hears of the recording as if it were decided.
        ('consent_key = "1"', ["abuse_prevention_consent"]),
        ('consent_key = "1"\nobjection_key = "9"', ["abuse_prevention_consent"]),
        ('objection_key = "5"', ["abuse_prevention", "recording"]),
        ('consent_key = "9"', ["abuse_prevention", "recording"]),
        ('prompts = ["recording_analysis"]', ["recording_analysis"]),
        (
            'prompts = ["recording_analysis"]\nconsent_key = "1"',
            ["recording_analysis_consent"],
        ),
        ('prompts = ["recording"]\nconsent_key = "1"', ["recording"]),
    ],
)
@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_the_notice_that_names_the_key_is_played(
    tmp_path: Path, notice: str, played: list[str], language: str
) -> None:
    made = plan(tmp_path, f'[notice]\nlanguage = "{language}"\n{notice}\n', invite())
    assert [prompt.prompt_id for prompt in made.notice] == played
    assert {prompt.language for prompt in made.notice} == {language}


def test_a_folder_of_one_s_own_is_never_mixed_with_the_shipped_notice(tmp_path: Path) -> None:
    """It has no variant, and its own text may name the key: only its manifest knows."""
    own = own_folder(tmp_path)
    made = plan(tmp_path, f'[notice]\nobjection_key = "9"\nprompt_dir = "{own}"\n', invite())
    assert [prompt.path.parent.parent for prompt in made.notice] == [own, own]
    assert [prompt.prompt_id for prompt in made.notice] == ["abuse_prevention", "recording"]


@pytest.mark.parametrize(
    ("key", "value", "attested", "played"),
    [
        ("objection", "abuse_prevention;v=2", {"abuse_prevention": "2"}, ["recording"]),
        (
            "objection",
            "abuse_prevention_objection;v=1,recording",
            {"abuse_prevention_objection": "1", "recording": ""},
            [],
        ),
        # The consent covers both: who was told of one alone is asked for both.
        (
            "consent",
            "recording;v=3",
            {"recording": "3"},
            ["abuse_prevention_consent"],
        ),
        ("consent", "abuse_prevention,recording", {"abuse_prevention": "", "recording": ""}, []),
        ("consent", "abuse_prevention_consent", {"abuse_prevention_consent": ""}, []),
    ],
)
def test_an_attestation_counts_for_the_notice_that_names_the_key(
    tmp_path: Path, key: str, value: str, attested: dict[str, str], played: list[str]
) -> None:
    notice = f'[notice]\n{key}_key = "{"9" if key == "objection" else "1"}"\n'
    made = plan(tmp_path, notice, invite(f"X-Callshield-Notice: {value}"))
    assert dict(made.attested) == attested
    assert [prompt.prompt_id for prompt in made.notice] == played


def test_one_key_cannot_mean_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another consent_key"):
        plan(tmp_path, '[notice]\nobjection_key = "1"\nconsent_key = "1"\n', invite())


def test_a_language_whose_prompts_are_missing_is_a_fault_at_start(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    extra = f'[notice]\nprompt_dir = "{folder}"\nlanguages = {{ "1588" = "en" }}\n'
    with pytest.raises(Exception, match="is missing: put the file there"):
        plan(tmp_path, extra, invite())


@pytest.mark.parametrize(
    ("number", "found"), [("107", True), ("1070", False), ("0800123", True), ("", False)]
)
def test_a_number_is_in_a_list_whole_or_by_its_beginning(number: str, found: bool) -> None:
    assert in_list(number, ["107", "0800*"]) is found


RELIABLE = ("Supported: timer, 100rel",)


@pytest.mark.parametrize(
    ("place", "headers", "kept"),
    [
        ("answer", RELIABLE, "answer"),
        ("before_ringing", (), "before_ringing"),
        ("early_media", RELIABLE, "early_media"),
        ("early_media", ("Require: 100rel",), "early_media"),
        ("early_media", ("k: 100rel",), "early_media"),
        # Nobody would know when the caller can hear it.
        ("early_media", (), "answer"),
        ("early_media", ("Supported: 100relaxed",), "answer"),
        ("upstream", (), "answer"),
        # The PBX played all of it: there is nothing to play anywhere.
        ("before_ringing", ("X-Callshield-Notice: abuse_prevention, recording",), "answer"),
    ],
)
def test_where_the_notice_is_heard(
    tmp_path: Path, place: str, headers: tuple[str, ...], kept: str
) -> None:
    made = plan(tmp_path, f'[notice]\nplace = "{place}"\n', invite(*headers))
    assert made.place == kept
    assert made.tells_first is (kept != "answer")
    if made.tells_first:
        assert made.ringing is not None
        assert made.ringing.prompt_id == "ringing"


def test_a_call_without_an_offer_hears_it_on_answer(tmp_path: Path) -> None:
    message = invite(*RELIABLE).replace(SDP, "")
    for place in ("before_ringing", "early_media"):
        made = plan(tmp_path, f'[notice]\nplace = "{place}"\n', message)
        assert (made.place, len(made.notice)) == ("answer", 2)


def test_an_agents_own_call_has_it_on_answer(tmp_path: Path) -> None:
    """Nobody who was called has answered before."""
    outgoing = (
        '[notice]\nplace = "before_ringing"\n[outbound]\npatterns = ["0[0-9]{8,10}"]\n'
        '[trunks.line]\nhost = "192.0.2.9"\n'
    )
    base = BASE.replace("attests_notice = true", 'outgoing = true\ntrunk = "line"')
    config = tmp_path / "callshield.toml"
    config.write_text(outgoing + base, encoding="utf-8")
    settings = load_settings(config)
    message = invite("X-Callshield-Agent: 1001").replace("sip:1001@", "sip:0212345678@", 1)
    admission, headers, sender = (
        Admission(settings, Prompts(settings)),
        SipHeaders(message),
        settings.peers[0],
    )
    route = admission.route(headers, sender, unavailable="", calls=())
    assert isinstance(route, Route), route
    made = admission.plan("c0ffee", headers, message, sender, route)
    assert (made.dialled, made.place) == ("0212345678", "answer")
    assert made.notice


def test_upstream_needs_somebody_who_says_so(tmp_path: Path) -> None:
    config = tmp_path / "callshield.toml"
    toml = '[notice]\nplace = "upstream"\n' + BASE
    config.write_text(toml, encoding="utf-8")
    assert load_settings(config).notice.place == "upstream"
    config.write_text(toml.replace("attests_notice = true", ""), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="attests_notice = true"):
        load_settings(config)
