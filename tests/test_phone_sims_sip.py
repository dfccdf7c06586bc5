"""The made phones are what the profiles say: one of them alone would prove the other's mistake."""

from __future__ import annotations

import pytest

from firmware_profiles.catalogue import shipped
from firmware_profiles.matching import match
from tests.phone_sims_sip import FAMILIES, Family


@pytest.mark.parametrize(("profile_id", "family"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_phone_takes_what_its_profile_pushes(profile_id: str, family: Family) -> None:
    profile = match(shipped(), family.user_agent).profile
    assert profile.id == profile_id
    (method,) = [push for push in profile.push if push.transport == "sip_notify"]
    assert method.content_type == family.content_type
    assert (method.event or "") == family.event
    assert (method.auth == "digest") == family.challenges
    assert method.max_bytes <= family.max_bytes
    if family.block:
        assert (method.in_call_setting or "").endswith(family.block)


def test_every_family_with_a_notify_has_a_phone() -> None:
    pushed = {
        profile.id
        for profile in shipped().phones.values()
        if any(push.transport == "sip_notify" for push in profile.push)
    }
    assert pushed == set(FAMILIES)
