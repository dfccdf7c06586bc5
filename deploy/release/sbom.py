"""The node's bill of materials (CycloneDX 1.6, JSON): ``./run sbom``.

Python packages with their licences and who needs whom come from cyclonedx-py, of the environment
that the node runs in, cut down to what ``deploy/requirements.lock`` names. What no Python tool sees
is added: pjproject with the source it was built from, the system's libraries that the compiled
modules are linked to, and the models. The same input gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_NAMESPACE = uuid.UUID("6f6f5f4e-1d0a-5d3e-9a39-0f6f7a1d6c11")
#: Loaded at run time (callshield/libopus.py), so that no linker names it.
_LOADED = ("libopus0",)
#: What is linked to everything, and the interpreter.
_INTERPRETER = ("python3", "libc6")
#: Models that are in the repository and have no card of their own.
_MODELS = {
    "detectors/models/silero_8k.onnx": ("silero-vad", "6.2.3", "MIT", "voice activity"),
    "detectors/words/models/words_ko.onnx": ("words_ko", "", "GPL-3.0-or-later", "abuse in Korean"),
    "detectors/words/models/words_en.onnx": (
        "words_en",
        "",
        "GPL-3.0-or-later",
        "abuse in English",
    ),
    "detectors/words/models/words_zh.onnx": (
        "words_zh",
        "",
        "GPL-3.0-or-later",
        "abuse in Chinese",
    ),
}
#: Licences that a package's metadata does not state in a form that the tool reads: by its own text.
_STATED = {
    "g722": "LicenseRef-public-domain",
    "protobuf": "BSD-3-Clause",
    "pyahocorasick": "BSD-3-Clause",
    "pyrage": "MIT",
}
Component = dict[str, Any]


class SbomError(Exception):
    """It cannot be made; the sentence says what to do."""


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path) -> set[str]:
    """Names that a lock file pins."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {normal(name) for name in found}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def environment_bom(python: Path) -> dict[str, Any]:
    """What cyclonedx-py says of an environment.

    Raises:
        SbomError: it cannot.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bom.json"
        tool = Path(sys.executable).with_name("cyclonedx-py")
        done = subprocess.run(
            [
                *(str(tool), "environment", str(python), "--output-reproducible"),
                *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"),
                *("--spec-version", "1.6", "-o", str(out)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not out.exists():
            raise SbomError(f"cyclonedx-py failed: {done.stderr.strip()[-300:]}")
        bom: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return bom


def keep(bom: dict[str, Any], names: set[str]) -> None:
    """Cut a bill down to some packages, and take this machine's paths out of it."""
    stays = {c["bom-ref"] for c in bom["components"] if normal(c["name"]) in names}
    root = bom["metadata"]["component"]["bom-ref"]
    bom["components"] = [c for c in bom["components"] if c["bom-ref"] in stays]
    for component in bom["components"]:
        references = component.get("externalReferences", [])
        component["externalReferences"] = [
            one for one in references if not one["url"].startswith("file:")
        ]
        if not component["externalReferences"]:
            del component["externalReferences"]
        stated = _STATED.get(normal(component["name"]), "")
        if stated and not component.get("licenses"):
            kind = "name" if stated.startswith("LicenseRef") else "id"
            component["licenses"] = [{"license": {kind: stated.removeprefix("LicenseRef-")}}]
    bom["dependencies"] = [
        {**one, "dependsOn": sorted(set(one.get("dependsOn", [])) & stays)}
        for one in bom["dependencies"]
        if one["ref"] in stays | {root}
    ]


def site_packages(python: Path) -> Path:
    """Where an environment's modules lie."""
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    return Path(_output(str(python), "-c", code).strip())


def compiled_modules(python: Path) -> Iterator[Path]:
    """Our own modules in machine code."""
    site = site_packages(python)
    yield from sorted(site.glob("_pjsua2*.so"))
    yield from sorted(site.glob("pjsip_guard*.so"))
    for folder in (ROOT / "sipbridge", site / "sipbridge"):
        yield from sorted(folder.glob("relay_core*.so"))


def linked_libraries(module: Path) -> set[str]:
    """Names of the Debian packages whose libraries a module asks for by name."""
    asked = set(re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-d", str(module))))
    found = set()
    for name, path in re.findall(r"^\s*(\S+) => (/\S+)", _output("ldd", str(module)), re.MULTILINE):
        if name in asked:
            found.add(_owner(Path(path)))
    return found - {""}


def _owner(path: Path) -> str:
    for place in (path, path.resolve(), Path("/usr") / path.relative_to("/")):
        if said := _output("dpkg-query", "-S", str(place)):
            return said.partition(":")[0]
    return ""


def debian_component(package: str) -> Component | None:
    """An installed package of the system."""
    form = "${Version}\t${Architecture}\t${source:Package}"
    said = _output("dpkg-query", "-W", f"-f={form}\n", package).splitlines()
    if not said:
        return None
    version, architecture, source = said[0].split("\t")
    release = dict(
        line.replace('"', "").split("=", 1)
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
        if "=" in line
    )
    distribution = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', '')}"
    quoted = version.replace("+", "%2B").replace(":", "%3A")
    return {
        "type": "library",
        "bom-ref": f"deb:{package}",
        "name": package,
        "version": version,
        "purl": f"pkg:deb/{release.get('ID', 'debian')}/{package}@{quoted}"
        f"?arch={architecture}&distro={distribution}",
        "properties": [{"name": "callshield:source_package", "value": source}],
    }


def pjproject_component(version: str, cache: Path) -> Component:
    """The SIP stack that the wheel was built from.

    Args:
        version: of the wheel: pjproject's own, and behind the plus recipe and source.
        cache: the folder where builds are kept with what they were made from.
    """
    upstream, _, local = version.partition("+")
    component: Component = {
        "type": "library",
        "bom-ref": "pjproject",
        "name": "pjproject",
        "version": upstream,
        "description": "PJSIP: SIP signalling; built with a module of ours",
        "licenses": [{"license": {"id": "GPL-2.0-or-later"}}],
        "purl": f"pkg:generic/pjproject@{upstream}",
        "externalReferences": [{"type": "website", "url": "https://www.pjsip.org/"}],
    }
    for entry in sorted((cache / "pjsua2").glob("*.json")):
        for source in re.findall(r"sha256:([0-9a-f]{64})", entry.read_text(encoding="utf-8")):
            if local.endswith(source[:8]):
                component["hashes"] = [{"alg": "SHA-256", "content": source}]
    return component


def model_components(python: Path) -> list[Component]:
    """Models that decide what a caller's audio means."""
    card = tomllib.loads((ROOT / "detectors/models/vocal_effort.toml").read_text("utf-8"))["model"]
    vocal_effort = ROOT / "detectors/models/vocal_effort.onnx"
    rows = [(vocal_effort, card["name"], str(card["version"]), card["licence"], card["what"])]
    rows += [(ROOT / path, *facts) for path, facts in _MODELS.items()]
    whisper = python.parent.parent / "share/callshield/whisper-base/model.bin"
    if whisper.exists():
        lock = (ROOT / "deploy/speech-model.lock").read_text("utf-8")
        versions = re.findall(r"==(\S+)", lock)
        rows.append((whisper, "whisper-base", versions[0], "MIT", "speech recognition, int8"))
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"model:{name}",
            "name": name,
            **({"version": version} if version else {}),
            "description": what,
            "licenses": [{"license": {"id": licence}}],
            "hashes": [{"alg": "SHA-256", "content": _sha256(path)}],
        }
        for path, name, version, licence, what in rows
    ]


def make(python: Path, cache: Path) -> dict[str, Any]:
    """The whole bill.

    Args:
        python: interpreter of the environment that the node runs in.
        cache: where pjsua2 was built.

    Raises:
        SbomError: it cannot be made.
    """
    names = locked(ROOT / "deploy/requirements.lock")
    bom = environment_bom(python)
    lacking = names - {normal(c["name"]) for c in bom["components"]}
    # Markers of other systems; setuptools and wheel build, and may be left out of an environment.
    lacking -= {"colorama", "setuptools", "wheel", "tzdata"}
    if lacking:
        raise SbomError(f"{python} lacks {', '.join(sorted(lacking))}: ./run setup first")
    keep(bom, names | {"callshield-pjsua2"})
    root = bom["metadata"]["component"]["bom-ref"]
    depends = {one["ref"]: set(one["dependsOn"]) for one in bom["dependencies"]}
    # What is installed because something else needs it stays below that; the root names its own.
    depends.setdefault(root, set())

    pjsua2 = next((c for c in bom["components"] if c["name"] == "callshield-pjsua2"), None)
    if pjsua2 is None:
        raise SbomError(f"{python} has no pjsua2: ./run setup first")
    bom["components"].append(pjproject_component(pjsua2["version"], cache))
    depends[root].add(pjsua2["bom-ref"])
    depends.setdefault(pjsua2["bom-ref"], set()).add("pjproject")

    libraries: set[str] = set()
    for module in compiled_modules(python):
        packages = linked_libraries(module)
        libraries |= packages
        user = "pjproject" if "pjs" in module.name else root
        depends.setdefault(user, set()).update(f"deb:{package}" for package in packages)
    libraries |= {*_LOADED, *_INTERPRETER}
    known = [found for one in sorted(libraries) if (found := debian_component(one)) is not None]
    bom["components"] += known
    depends[root] |= {f"deb:{package}" for package in (*_LOADED, *_INTERPRETER)}

    models = model_components(python)
    bom["components"] += models
    depends[root] |= {model["bom-ref"] for model in models}
    refs = {component["bom-ref"] for component in bom["components"]}
    bom["components"].sort(key=lambda component: str(component["bom-ref"]))
    bom["dependencies"] = [
        {"ref": ref, "dependsOn": sorted(below & refs)} for ref, below in sorted(depends.items())
    ] + [{"ref": ref} for ref in sorted(refs - set(depends))]
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}"
    return bom


def faults(text: str) -> str:
    """What is wrong with a bill by CycloneDX's own schema; empty: nothing."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return str(found) if found else ""


def main() -> int:
    """Write the file; 1 where it cannot be made."""
    parser = argparse.ArgumentParser(prog="run sbom", description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, default=ROOT / ".venv/bin/python")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/callshield")
    parser.add_argument("--output", type=Path, default=ROOT / "dist/callshield.cdx.json")
    options = parser.parse_args()
    try:
        bom = make(options.python, options.cache)
    except SbomError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    text = json.dumps(bom, indent=2, ensure_ascii=False) + "\n"
    if wrong := faults(text):
        print(f"run: the bill of materials is not valid CycloneDX: {wrong}", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    unlicensed = [
        component["name"]
        for component in bom["components"]
        if not component.get("licenses") and not component["bom-ref"].startswith("deb:")
    ]
    print(f"{options.output}: {len(bom['components'])} components, CycloneDX 1.6, valid")
    if unlicensed:
        print(f"without a stated licence: {', '.join(unlicensed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
