"""``docs/compliance.md``, generated from the presets so that page and product say the same.

``python -m callshield.compliance_page > docs/compliance.md``; a test holds the two together, and
another one that every file, test and key that a preset names exists.
"""

from __future__ import annotations

from callshield.law_command import condition
from callshield.law_presets import Preset, Rule, load_preset, preset_ids, shown

_HEAD = """\
# Which law, enforced where, tested by what

**Documentation, not legal advice.** Engineers wrote this from what they could find; have a lawyer
read the rules for your site. Each says where it comes from, when that was looked up, and whether
the text itself was read or only what others write of it.

```toml
[law]
preset = "kr-private"       # "": none, the default
version = "1"               # optional: with another version of the preset nothing starts
grievance_contact = "고충처리위원, 내선 1234"
```

- A preset sets **defaults** for keys that neither the configuration nor the environment sets.
- What it **refuses** cannot be switched on by any key: the configuration is not loaded, and the
  sentence names key, rule and reason.
- What it **asks for** you have to name; until then `callshield doctor` says so.
- **The notice** is refused at the start, and by `doctor`, unless the prompts state in their
  `manifest.toml` that they say what the preset wants said ([prompts.md](prompts.md)); of the
  shipped prompts only the versions count whose texts were checked.
- Without a preset nothing of this page is looked after but the product's own principles: notice
  before tap, the caller only, no silent listening, a person presses the button.

`callshield law list`, `callshield law show PRESET`, `callshield law check --config FILE` (exit
status 1: something lacks; 2: the preset forbids it). `callshield compliance works-council` writes
the paper for the works council (노사협의회) from the configuration in force. The European risk file
is [eu-risk-file.md](eu-risk-file.md).

Kinds of rules: *demands*, *permits* and *forbids* are the law's, as we understand it; *chosen* is
ours.

This page is generated: `python -m callshield.compliance_page > docs/compliance.md`.
"""

#: The one that others of its country are shown beside, first.
_FIRST = "kr-private"


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    seen: list[tuple[Rule, str]] = []
    for preset_id in sorted(preset_ids(), key=lambda name: (name != _FIRST, name)):
        preset = load_preset(preset_id)
        parts.append(_section(preset, seen))
        seen += [(rule, preset_id) for rule in preset.rules]
    return "\n".join(parts)


def _section(preset: Preset, seen: list[tuple[Rule, str]]) -> str:
    lines = [
        f"## `{preset.id}`: {preset.title}",
        "",
        f"Version {preset.version}. {preset.about}",
        "",
        "| rule | says | source, checked | enforced in | test | yours |",
        "|---|---|---|---|---|---|",
    ]
    shared: dict[str, list[str]] = {}
    for rule in preset.rules:
        first = next((owner for known, owner in seen if known == rule), None)
        if first is not None:
            shared.setdefault(first, []).append(f"`{rule.id}`")
            continue
        lines.append(_row(rule))
    for owner, ids in shared.items():
        lines += ["", f"As in `{owner}`: {', '.join(ids)}."]
    if preset.defaults:
        lines += ["", "Defaults: " + ", ".join(_default(*item) for item in preset.defaults.items())]
        lines[-1] += "."
    named = [name for name in (*preset.notice.names, *_more(preset)) if name]
    lines += ["", f"The notice names: {', '.join(named)}; always also what for."]
    if preset.limits:
        lines += ["", "Refused otherwise:", ""]
        lines += [
            f"- `{limit.key}` is {_code(condition(limit))}: {limit.why} (`{limit.rule}`)"
            for limit in preset.limits
        ]
    if preset.asks:
        lines += ["", "Asked for:", ""]
        lines += [f"- `{ask.key}`: {ask.what} (`{ask.rule}`)" for ask in preset.asks]
    return "\n".join(lines) + "\n"


def _more(preset: Preset) -> list[str]:
    """What the notice names besides, and when."""
    return [
        "voice (while `detector.acoustic` is on)" if preset.notice.voice else "",
        "details" if preset.notice.details else "",
        "" if "recording" in preset.notice.names else "recording (where calls are recorded)",
    ]


def _default(key: str, value: object) -> str:
    return f"`{key} = {shown(value)}`"


def _code(text: str) -> str:
    return text if text in ("empty", "set") else f"`{text}`"


def _row(rule: Rule) -> str:
    read = "" if rule.read_in_original else "**not read in the original**: "
    source = f"{rule.source}. {rule.checked}, {read}{rule.looked_up}"
    places = [f"[{place.rpartition('/')[2]}](../{place})" for place in rule.places]
    keys = [f"`{key}`" for key in rule.settings]
    enforced = ", ".join([*keys, *places]) or "-"
    tests = [f"`{one.removeprefix('tests/').replace('.py::', '::')}`" for one in rule.tests]
    cells = [
        f"`{rule.id}` ({rule.kind})",
        rule.says,
        source,
        enforced,
        ", ".join(tests) or "-",
        rule.operator or "-",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(page(), end="")
