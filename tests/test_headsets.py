"""What was measured at a headset reaches the dose meter and the limiter, and only so far."""

from __future__ import annotations

import array
import math
from pathlib import Path

import pytest

from callshield.errors import ConfigurationError
from callshield.settings import load_settings
from callshield.settings_headsets import HeadsetSettings, turned_down
from sipbridge import hearing_desk, media_worker
from sipbridge.dose_meter import DoseMeter
from sipbridge.relay_core import Ear

CONFIG = """
[[peers]]
name = "pbx"
networks = ["192.0.2.1"]
[ear]
calibration_db_spl_at_0dbfs = 100.0
[agents.1001]
uri = "sip:1001@192.0.2.20"
headset = "loud"
[agents.1002]
uri = "sip:1002@192.0.2.21"
headset = "unmeasured"
[agents.1003]
uri = "sip:1003@192.0.2.22"
[headsets.loud]
profile = "jabra"
calibration_db_spl_at_0dbfs = 112.0
maximum_db_spl = 96.0
[headsets.unmeasured]
"""
CALL = "0" * 32
HOUR = (3600 * 8000 * 10 ** (-20 / 10), 3600 * 8000)


def settings_of(folder: Path, text: str = CONFIG):  # type: ignore[no-untyped-def]
    path = folder / "callshield.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_the_dose_is_that_of_the_agents_own_headset(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.calibrations == {"1001": 112.0}
    meter = DoseMeter(
        tmp_path / "dose.json", settings.ear.calibration_db_spl_at_0dbfs, settings.calibrations
    )
    heard = {agent: meter.add(agent, CALL, *HOUR, now=1000.0) for agent in ("1001", "1002", "1003")}
    assert heard["1001"].level_dba - heard["1003"].level_dba == pytest.approx(12.0, abs=0.1)
    assert heard["1002"].level_dba == heard["1003"].level_dba
    assert not heard["1001"].estimate


def test_one_measured_headset_leaves_the_others_an_estimate(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, CONFIG.replace("[ear]\ncalibration_db_spl_at_0dbfs = 100.0", "")
    )
    meter = DoseMeter(tmp_path / "dose.json", None, settings.calibrations)
    assert not meter.add("1001", CALL, *HOUR, now=1000.0).estimate
    assert meter.add("1002", CALL, *HOUR, now=1000.0).estimate


def test_the_limiter_is_turned_down_for_the_most_sensitive_headset_in_use(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    # 96 dB at 112 dB for full scale: 16 dB below it; the RMS limit was lower already.
    assert settings.ear_profile["limit_peak_dbfs"] == -16.0
    assert settings.ear_profile["limit_rms_dbfs"] == -18.0
    others = {key: value for key, value in settings.ear.profile().items() if "limit_p" not in key}
    assert others.items() <= settings.ear_profile.items()
    nobody = settings_of(tmp_path, CONFIG.replace('headset = "loud"', 'headset = "unmeasured"'))
    assert nobody.ear_profile == nobody.ear.profile()


@pytest.mark.parametrize("form", ["sine", "square", "clicks"])
def test_no_sound_of_any_form_gets_louder_than_the_maximum(tmp_path: Path, form: str) -> None:
    """In the C limiter itself: neither a sample nor a mean is above what gives 96 dB."""
    ear = Ear(**settings_of(tmp_path).ear_profile)
    ceiling = 32768 * 10 ** (-16 / 20)
    for packet in range(100):
        times = range(160 * packet, 160 * packet + 160)
        samples = array.array(
            "h",
            [
                {
                    "sine": int(32767 * math.sin(2 * math.pi * 1000 * n / 8000)),
                    "square": 32767 if n // 8 % 2 else -32768,
                    "clicks": 32767 if n % 37 == 0 else 0,
                }[form]
                for n in times
            ],
        )
        heard = array.array("h", ear.process(samples.tobytes()))
        assert max(abs(sample) for sample in heard) <= ceiling


class _Taken(Exception):
    """Stops a start where what is looked for has been handed over."""


def test_the_media_worker_hands_it_to_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, float] = {}

    def core(*_: object, ear: dict[str, float], **__: object) -> None:
        taken.update(ear)
        raise _Taken

    monkeypatch.setattr(media_worker, "Core", core)
    with pytest.raises(_Taken):
        media_worker.MediaWorker(settings_of(tmp_path))
    assert taken["limit_peak_dbfs"] == -16.0


def test_the_bridge_hands_it_to_the_dose_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []

    def meter(*arguments: object) -> None:
        taken.extend(arguments)
        raise _Taken

    monkeypatch.setattr(hearing_desk, "DoseMeter", meter)
    with pytest.raises(_Taken):
        hearing_desk.HearingDesk(settings_of(tmp_path), *[lambda *_: None] * 3)
    assert taken[1:] == [100.0, {"1001": 112.0}, [80.0, 100.0]]


def test_without_the_headset_the_same_sound_is_louder() -> None:
    """Negative control: the ceiling above is the headset's doing."""
    ear = Ear()
    loud = array.array("h", [32767 if n // 8 % 2 else -32768 for n in range(160)])
    heard = array.array("h", ear.process(loud.tobytes()))
    assert max(abs(sample) for sample in heard) > 32768 * 10 ** (-16 / 20)


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        (('headset = "loud"', 'headset = "other"'), "(file)", "agents.1001.headset"),
        (("= 112.0\n", "= 999.0\n"), "headsets.loud.calibration_db_spl_at_0dbfs", "at most 160"),
        (
            ("calibration_db_spl_at_0dbfs = 112.0\n", ""),
            "headsets.loud",
            "without which no level is known",
        ),
        (("maximum_db_spl = 96.0", "maximum_db_spl = 80.0"), "headsets.loud", "volume down"),
        (("maximum_db_spl", "maximum_db"), "headsets.loud.maximum_db", "maximum_db_spl"),
        (("[headsets.loud]", "[headsets.'a b']"), "headsets", "ids of letters"),
    ],
)
def test_what_cannot_be_is_refused_by_key(
    tmp_path: Path, change: tuple[str, str], key: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings_of(tmp_path, CONFIG.replace(*change))
    faults = raised.value.faults
    assert any(fault[1] == key and expected in fault[3] for fault in faults), faults


def test_a_maximum_without_effect_changes_nothing() -> None:
    profile = {"limit_peak_dbfs": -6.0, "limit_rms_dbfs": -18.0, "soften_ratio": 5.0}
    wide = HeadsetSettings(calibration_db_spl_at_0dbfs=100, maximum_db_spl=118)
    assert turned_down(profile, [wide]) == profile
    assert turned_down(profile, []) == profile
