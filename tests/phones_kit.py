"""What the tests of firmware profiles share: one site's values, profiles in a made folder."""

from __future__ import annotations

from pathlib import Path

from firmware_profiles.phone_tokens import CISCO_PATH, PhoneTokens
from firmware_profiles.rendering import Values

FRAGMENTS = Path(__file__).parent / "phone_fragments"
#: Of those families whose keys can call us, with keys that do.
URL_FRAGMENTS = Path(__file__).parent / "phone_fragments_url"
LISTENER = "http://192.0.2.10:8089"
TOKENS = PhoneTokens(bytes(range(32)), ["1001", "1002"])
#: Every character that some vendor's format has to escape.
NASTY = "s&c<r>e't"

SITE = Values(
    agent="1001",
    user="1001",
    proxy="192.0.2.10",
    proxy_port=5062,
    us="192.0.2.10",
    action_url=LISTENER + TOKENS.path("1001", "event"),
    end_url=LISTENER + TOKENS.path("1001", "end"),
    help_url=LISTENER + TOKENS.path("1001", "help"),
    authentication_url=LISTENER + CISCO_PATH,
)

PROFILE = """
version = 1
id = "{id}"
kind = "desk"
vendor = "Made"
family = "{id}"
models = ["M1"]
firmware = {{ source = "manual"{firmware} }}
codecs = {{ names = {{ PCMU = "pcmu" }}, source = "manual" }}
end = {{ ways = ["typed_dtmf"], source = "manual" }}
help = {{ ways = ["typed_dtmf"], source = "manual" }}
provisioning = {{ format = "cfg", file = "{{mac}}.cfg", source = "manual" }}
[sources.manual]
title = "A manual"
section = "A chapter"
[[user_agent]]
pattern = "{pattern}"
example = "{example}"
source = "manual"
{extra}
"""

GENERIC = (
    PROFILE.format(id="generic", firmware="", pattern="x", example="x", extra="")
    .replace('kind = "desk"', 'kind = "generic"')
    .partition("[[user_agent]]")[0]
)


def profile(
    id_: str = "made",
    pattern: str = "Made [0-9]*",
    example: str = "Made 1.2",
    *,
    firmware: str = "",
    extra: str = "",
) -> str:
    """A profile's text."""
    range_ = f", {firmware}" if firmware else ""
    return PROFILE.format(id=id_, pattern=pattern, example=example, firmware=range_, extra=extra)


def folder(path: Path, **texts: str) -> Path:
    """A folder of profiles with a generic one."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in {"generic": GENERIC, **texts}.items():
        (path / f"{name}.toml").write_text(text, encoding="utf-8")
    return path
