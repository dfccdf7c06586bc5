"""What `callshield doctor` says of the listener for phones, before a phone finds it out."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from callshield.doctor_phone_listener import examine_listener
from callshield.findings import Verdict
from callshield.settings import Settings, load_settings
from firmware_profiles.phone_tokens import load_key
from tests.notifier_kit import free_port, write_config
from tests.phone_keys_kit import phone_settings, phones_table


def problems(settings: Settings) -> str:
    return "\n".join(
        f"{finding.detail}: {finding.advice}"
        for finding in examine_listener(settings)
        if finding.verdict is Verdict.PROBLEM
    )


def notes(settings: Settings) -> str:
    return "\n".join(
        f"{finding.detail}: {finding.advice}"
        for finding in examine_listener(settings)
        if finding.verdict is Verdict.NOTE
    )


def test_a_listener_in_order_has_no_problem(tmp_path: Path) -> None:
    settings = phone_settings(tmp_path)
    assert problems(settings) == ""
    assert "made at the first start" in notes(settings)
    load_key(settings)
    assert notes(settings) == ""


def test_without_a_port_it_is_off(tmp_path: Path) -> None:
    (found,) = examine_listener(load_settings(write_config(tmp_path, free_port())))
    assert found.detail.startswith("off")


def test_a_port_that_is_taken_is_found(tmp_path: Path) -> None:
    settings = phone_settings(tmp_path)
    with socket.socket() as taken:
        taken.bind((settings.phones.bind, settings.phones.port))
        taken.listen()
        assert "cannot be opened" in problems(settings)
    assert problems(settings) == ""


def test_networks_are_needed(tmp_path: Path) -> None:
    assert "sip.phone.networks" in problems(phone_settings(tmp_path, networks=""))


def test_a_key_that_others_can_read_is_found(tmp_path: Path) -> None:
    settings = phone_settings(tmp_path)
    load_key(settings)
    path = settings.node.state_dir / "phones.key"
    path.chmod(0o640)
    assert "chmod 600" in problems(settings)
    assert path.read_text(encoding="utf-8").strip() not in problems(settings)


@pytest.mark.parametrize(
    ("url", "bind", "networks", "problem", "said"),
    [
        ("http://127.0.0.1:{port}", "127.0.0.1", '"127.0.0.1"', "", ""),
        ("http://127.0.0.1:{port}", "127.0.0.1", '"192.0.2.0/24"', "where no phone is", ""),
        ("http://127.0.0.1:{port}", "0.0.0.0", '"192.0.2.0/24"', "to itself", ""),
        ("http://0.0.0.0:{port}", "0.0.0.0", '"192.0.2.0/24"', "to itself", ""),
        ("http://192.0.2.5:{port}", "0.0.0.0", '"192.0.2.0/24"', "", "unencrypted"),
        ("http://192.0.2.5:1", "0.0.0.0", '"192.0.2.0/24"', "", "forwards it"),
        ("http://192.0.2.5:{port}", "127.0.0.1", '"127.0.0.1"', "", "forwards it"),
        ("http://desk.example:{port}", "0.0.0.0", '"192.0.2.0/24"', "", "DNS"),
    ],
)
def test_an_address_that_leads_no_phone_here_is_found(
    tmp_path: Path, url: str, bind: str, networks: str, problem: str, said: str
) -> None:
    port = free_port()
    table = phones_table(port, f'bind = "{bind}"', networks, url.format(port=port))
    settings = load_settings(write_config(tmp_path, free_port(), table))
    load_key(settings)
    assert bool(problems(settings)) == bool(problem)
    assert problem in problems(settings)
    assert said in notes(settings)


def test_a_certificate_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    port = free_port()
    more = f'bind = "0.0.0.0"\ncertificate = "{tmp_path}/no.pem"\nprivate_key = "{tmp_path}/no.key"'
    table = phones_table(port, more, url=f"https://192.0.2.5:{port}")
    settings = load_settings(write_config(tmp_path, free_port(), table))
    assert "phones.private_key" in problems(settings)
