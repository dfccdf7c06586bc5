"""``docs/phones.md``, generated from the profiles themselves so that it cannot be wrong.

``python -m firmware_profiles.page > docs/phones.md``; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable

from firmware_profiles.catalogue import shipped
from firmware_profiles.schema import HeadsetProfile, Profile, PushMethod, Source

_HEAD = """\
# Phones and headsets

What each family can do for an agent in an abusive call, and what has to be set for it. One TOML
file a family in `firmware_profiles/`, and each fact names where it is written. **?** marks what was
not found written in the vendor's manual or in configurations and code in use: try it on one phone
first. No fact on this page was tried on a real desk phone by us; of the softphones, what names the
source *seen* was ([softphones.md](softphones.md), browser phones too). The size of a screen is
lines × characters of the smallest model.

    callshield profiles list
    callshield profiles match "Yealink SIP-T46S 66.85.0.5"
    callshield profiles render T46S --agent 1001 > 001565aabbcc.cfg
    callshield profiles check exported.cfg
    callshield profiles check --phone 192.0.2.20 --model T46S
    callshield profiles check --pbx
    callshield profiles push --agent 1001

What is shown, when, and how it is set up: [screens.md](screens.md).

`match` takes a User-Agent: the most specific pattern wins, a firmware outside the range or a text
that nobody claims is the generic profile, and the reason is said. Behind a PBX, which hides the
phone, the model comes from `agents.ID.phone_model`, or from the PBX ([pbx/ami.md](pbx/ami.md)):
`check --pbx` asks it, and says of every agent what the phone is and whether it is known.

`render` prints no secret: `--password-file` and `--push-password-file` (mode 0600) put them in.
The keys for *end* and *help* send the feature codes (`sip.end_code`, `sip.help_code`) as digits,
or call Callshield (`--keys url`, [phone-keys.md](phone-keys.md)); with `[phones]` `port` and
`url` the agent's addresses there are written, too, which are to be kept like a password. Behind
a PBX give its address by `--proxy`: the phone registers and sends its calls there, and trusts
it. Callshield takes no registrations: without `--proxy` it is called directly.

`check` finds what would fail silently. A file may be one that the phone exported or one that you
wrote; with `--agent` addresses and codes are compared, too. `--phone` asks a phone inside
`sip.phone.networks` without telling it anything: no redirect is followed, no password sent, at most
64 KiB read within 2 s.

This page is generated: `python -m firmware_profiles.page > docs/phones.md`.

## Families and abilities

"""

_COLUMNS = (
    "family",
    "screen push",
    "during a call",
    "remote keys",
    "*end*, *help*",
    "answers by itself",
    "traps known",
    "not seen written",
)

_HEADSETS = """\

## Headsets

By USB HID (WebHID): the console can use what stands under *controls*. The maximum is what the
maker's own limiter lets through; it is no calibration. None of these makers publishes the level at
the ear for a full-scale signal, which depends on the phone and its volume, too: measure it
([hearing.md](hearing.md#the-dose)) and write it down once for each kind of headset:

    [headsets.front-desk]
    profile = "jabra"
    calibration_db_spl_at_0dbfs = 104.0
    maximum_db_spl = 96.0

    [agents.1001]
    headset = "front-desk"

`calibration_db_spl_at_0dbfs` makes the dose of these agents a measurement instead of an estimate.
`maximum_db_spl` turns the limiter down to the level that gives it: by the most sensitive of the
headsets in use, for all calls of the node, as the limiter has one setting.

| headset | USB vendor | controls | maximum at the ear | calibration |
|---|---|---|---|---|
"""

_WAYS = {
    "key_dtmf": "key",
    "typed_dtmf": "code typed",
    "action_url": "action URL",
    "headset": "headset",
}
_TRANSPORTS = {
    "sip_notify": "NOTIFY",
    "http_post": "HTTP POST",
    "http_get": "HTTP GET",
}
_TRUST = {
    "anybody": "anybody",
    "registrar": "its registrar",
    "address_list": "a list of addresses",
    "credentials": "a name and password",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _mark(verified: bool) -> str:
    return "" if verified else " **?**"


def _joined(parts: Iterable[str], nothing: str = "no") -> str:
    return "<br>".join(dict.fromkeys(parts)) or nothing


def _pushed(method: PushMethod) -> str:
    if not method.document:
        return ""
    how = _TRANSPORTS[method.transport]
    size = f"{method.lines} × {method.characters}"
    return f"{how}{_mark(method.verified)}, {size}{_mark(method.size_verified)}"


def _in_call(method: PushMethod) -> str:
    if not method.document:
        return ""
    if method.in_call == "by_setting":
        return f"`{method.in_call_setting}`{_mark(method.verified)}"
    return {"yes": "yes", "no": "no", "unknown": "not known"}[method.in_call]


def _row(profile: Profile) -> str:
    facts = profile.facts()
    unseen = sum(not fact.verified for _, fact in facts)
    cells = [
        f"[{profile.name}](#{profile.id})",
        _joined(filter(None, map(_pushed, profile.push))),
        _joined(filter(None, map(_in_call, profile.push)), "–"),
        _joined(
            _TRANSPORTS[press.transport] + _mark(press.verified) for press in profile.remote_key
        ),
        ", ".join(_WAYS[way] for way in profile.end.ways) + _mark(profile.end.verified),
        _joined(f"`{answer.header}`{_mark(answer.verified)}" for answer in profile.auto_answer),
        str(sum(bool(setting.trap) for setting in profile.setting) + len(profile.by_hand)),
        f"{unseen} of {len(facts)}",
    ]
    return f"| {' | '.join(cells)} |"


def _source(source: Source) -> str:
    title = f"[{_cell(source.title)}]({source.url})" if source.url else _cell(source.title)
    return f"{title}: {_cell(source.section)}"


def _family(profile: Profile) -> list[str]:
    firmware = profile.firmware
    since = f"from {firmware.min}" if firmware.min else "any"
    lines = [
        "",
        f'<a id="{profile.id}"></a>',
        "",
        f"### {profile.name}",
        "",
        f"`{profile.id}`. Models: {', '.join(profile.models)}. Firmware {since}"
        + (f" to {firmware.max}" if firmware.max else "")
        + f"{_mark(firmware.verified)} [{firmware.source}].",
        f"File: {_cell(profile.provisioning.file)}. "
        f"SRTP: {'yes' if profile.codecs.srtp else 'no'}; "
        f"telephone-event {profile.codecs.telephone_event}; packets of "
        f"{', '.join(map(str, profile.codecs.ptime_ms))} ms{_mark(profile.codecs.verified)} "
        f"[{profile.codecs.source}].",
    ]
    if profile.user_agent:
        names = [
            f"`{agent.pattern}`{_mark(agent.verified)}"
            + (" (provisioning)" if agent.kind == "provisioning" else "")
            for agent in profile.user_agent
        ]
        lines += [f"User-Agent: {', '.join(names)}."]
    if profile.quirk:
        lines += [""]
        lines += [
            f"- {quirk.text}{_mark(quirk.verified)} [{quirk.source}]" for quirk in profile.quirk
        ]
    for method in profile.push:
        trust = _TRUST[method.trust]
        what = f"`Event: {method.event}`" if method.event else f"`{method.path}`"
        if method.transport == "sip_notify" and not method.event:
            what = "without an Event of its own"
        body = f", `{method.content_type}`" if method.content_type else ""
        form = f" in the field `{method.form_field}`" if method.form_field else ""
        largest = f"{method.max_bytes} bytes{_mark(method.bytes_verified)}"
        known = "" if method.verified else "; the whole of it **?**"
        gone = method.clears_by.replace("_", " ")
        lines += [
            "",
            f"Push *{method.id}*: {_TRANSPORTS[method.transport]} {what}{body}{form}; believes "
            f"{trust}; auth {method.auth}; at most {largest}, {method.encoding}; taken away by: "
            f"{gone}{_mark(method.clears_verified)}{known} [{method.source}].",
        ]
    traps = [(setting.key, setting.trap, setting) for setting in profile.setting if setting.trap]
    if traps or profile.by_hand:
        lines += ["", "| key | otherwise | source |", "|---|---|---|"]
        lines += [
            f"| `{_cell(key)}` | {_cell(trap)} | {setting.source}{_mark(setting.verified)} |"
            for key, trap, setting in traps
        ]
        lines += [
            f"| by hand: {_cell(hand.where)} | {_cell(hand.trap)} | "
            f"{hand.source}{_mark(hand.verified)} |"
            for hand in profile.by_hand
        ]
    lines += ["", "Sources:", ""]
    lines += [f"- *{name}*: {_source(source)}" for name, source in profile.sources.items()]
    return lines


def _headset(profile: HeadsetProfile) -> str:
    levels = _joined(
        f"{level.maximum_db:g} {level.unit} ({level.about}){_mark(level.verified)} "
        f"[{_cell(profile.sources[level.source].title)}]"
        for level in profile.acoustics
    )
    given = profile.calibration.db_spl_at_0dbfs
    calibration = f"{given:g} dB SPL" if given is not None else profile.calibration.why
    return (
        f"| {profile.name} (`{profile.id}`): {', '.join(profile.models)} | "
        f"0x{profile.usb.vendor_id:04x}{_mark(profile.usb.verified)} | {', '.join(profile.hid)} | "
        f"{levels} | {calibration}{_mark(profile.calibration.verified)} |"
    )


def page() -> str:
    """The whole page."""
    catalogue = shipped()
    order = {"desk": 0, "soft": 1, "generic": 2}
    phones = sorted(
        catalogue.phones.values(), key=lambda profile: (order[profile.kind], profile.id)
    )
    head = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines = [*head, *(_row(profile) for profile in phones)]
    headsets = [_headset(profile) for profile in catalogue.headsets.values()]
    details = ["", "## Each family", *(line for profile in phones for line in _family(profile))]
    return _HEAD + "\n".join(lines) + "\n" + _HEADSETS + "\n".join([*headsets, *details]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
