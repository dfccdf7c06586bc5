"""A simulated phone, set up by its profile, and the part of a node that pushes to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

import pytest

from callshield.free_ports import free_port
from callshield.messages import CallEnded, CallStarted, RiskChanged
from callshield.messages_phones import PhoneKey, PhoneKeyDone, ScreenPushed
from callshield.settings import Settings, load_settings
from firmware_profiles.catalogue import Catalogue, shipped
from firmware_profiles.choosing import Plan
from firmware_profiles.desk import Desk
from firmware_profiles.http_push import HttpPush
from firmware_profiles.listener import Listener
from firmware_profiles.phone_tokens import CISCO_PATH, load_tokens
from firmware_profiles.push_result import Result
from firmware_profiles.rendering import Values, settings_of
from firmware_profiles.schema import Profile
from tests.notifier_kit import write_config
from tests.phone_sims_http import Phone
from tests.phone_sims_http_cisco import AuthMode, CiscoMppPhone, CiscoPhone
from tests.phone_sims_http_poly import PolyPhone
from tests.phone_sims_http_xml import FanvilPhone, MitelPhone, YealinkPhone
from tests.phones_kit import SITE

LOGIN = ("callshield", "s3cret-of-phones")
#: Of a phone that answers at once; patience for a machine that stands still for a moment.
LIMIT_S = 20.0

P = TypeVar("P", bound=Phone)
Keys = dict[str, str]


def _poly(keys: Keys) -> PolyPhone:
    return PolyPhone(
        message_type=int(keys["apps.push.messageType"]),
        user=keys["apps.push.username"],
        password=keys["apps.push.password"],
    )


def _cisco(keys: Keys) -> CiscoPhone:
    return CiscoPhone(authentication_url=keys["authenticationURL"])


def _cisco_mpp(keys: Keys) -> CiscoMppPhone:
    mode = keys["CISCO_XML_EXE_Auth_Mode"]
    assert mode in get_args(AuthMode)
    return CiscoMppPhone(
        enabled=keys["CISCO_XML_EXE_Enable"] == "Yes",
        auth_mode=cast(AuthMode, mode),
        user=LOGIN[0],
        password=LOGIN[1],
    )


def _fanvil(keys: Keys) -> FanvilPhone:
    return FanvilPhone(
        push_ip=[keys["phone/PushXMLIP"]],
        push_auth=keys["phone/EnablePushXMLAuth"] != "0",
        block_when_call=keys["phone/BlockXMLWhenCall"] != "0",
        user=LOGIN[0],
        password=LOGIN[1],
    )


def _yealink(keys: Keys) -> YealinkPhone:
    return YealinkPhone(
        push_server=[keys["push_xml.server"]],
        block_in_calling=keys["push_xml.block_in_calling"] != "0",
        action_uri_limit_ip=[keys["features.action_uri_limit_ip"]],
    )


def _mitel(keys: Keys) -> MitelPhone:
    return MitelPhone(post_list=[keys["xml application post list"]])


@dataclass(frozen=True, slots=True)
class Family(Generic[P]):
    """A family, its way by HTTP, and a phone that is set up as its profile writes it."""

    profile: str
    method: str
    make: Callable[[Keys], P]


POLY = Family("poly-vvx", "push", _poly)
CISCO = Family("cisco-enterprise", "cgi-execute", _cisco)
CISCO_MPP = Family("cisco-mpp", "cgi-execute", _cisco_mpp)
FANVIL = Family("fanvil", "xml-service", _fanvil)
YEALINK = Family("yealink-t", "xml-http", _yealink)
MITEL = Family("mitel-6800", "xml-post", _mitel)
FAMILIES: tuple[Family[Any], ...] = (POLY, CISCO, CISCO_MPP, FANVIL, YEALINK, MITEL)


def keys_of(profile: Profile, *, url: str) -> Keys:
    """What `callshield profiles render` would write for a phone on this machine."""
    values = Values(
        agent=SITE.agent,
        user=SITE.user,
        proxy="127.0.0.1",
        proxy_port=5060,
        us="127.0.0.1",
        authentication_url=url + CISCO_PATH,
        push_user=LOGIN[0],
        push_password=LOGIN[1],
        password=LOGIN[1],
    )
    return {entry.key: entry.value or "" for _, entry in settings_of(profile, values)}


@dataclass
class Notes:
    """NOTIFY goes nowhere here: who sends one has chosen the wrong way."""

    sent: list[tuple[Plan, bytes]] = field(default_factory=list)

    async def send(self, plan: Plan, body: bytes) -> Result:
        self.sent.append((plan, body))
        return Result("refused", "no SIP in this test")


@dataclass
class Site(Generic[P]):
    """One node's desk, and the phone of its agent 1001."""

    phone: P
    settings: Settings
    desk: Desk
    http: HttpPush
    told: list[ScreenPushed]
    notes: Notes
    pressed: list[PhoneKey]
    """What the notifier was told of keys; it says that all of it is done."""

    @property
    def plan(self) -> Plan:
        plan = self.desk.plans["1001"]
        assert isinstance(plan, Plan), plan.reason
        return plan

    def begin(self, call_id: str = "c1", agent_id: str = "1001") -> None:
        """A call is there; nothing is shown of it."""
        self.desk.feed(CallStarted(ts=0, call_id=call_id, agent_id=agent_id, pbx_call_id="p1"))

    def risk(self, level: int, *categories: str, call_id: str = "c1") -> None:
        """The caller's level changes."""
        self.desk.feed(
            RiskChanged(
                ts=0,
                call_id=call_id,
                level=level,
                previous=0,
                categories=list(categories),
                score=0.9,
            )
        )

    def end(self, call_id: str = "c1") -> None:
        """The call is over for us; the phone may not have noticed yet."""
        self.desk.feed(CallEnded(ts=0, call_id=call_id, agent_id="1001", reason="caller_hangup"))

    async def idle(self) -> None:
        """Until nothing is under way, here or in the phone."""
        while self.desk._tasks:
            await asyncio.wait(self.desk._tasks.copy())
            await asyncio.sleep(0)  # what follows from them is begun
        await self.phone.settled()


def changed(profile: Profile, method_id: str, **facts: object) -> Profile:
    """A profile with facts of one way of pushing changed."""
    push = [
        method.model_copy(update=facts) if method.id == method_id else method
        for method in profile.push
    ]
    return profile.model_copy(update={"push": push})


def with_profile(profile: Profile) -> Catalogue:
    """All profiles, this one instead of the shipped one."""
    catalogue = shipped()
    return Catalogue({**catalogue.phones, profile.id: profile}, catalogue.headsets)


@asynccontextmanager
async def pushing(
    family: Family[P],
    folder: Path,
    *,
    profile: Profile | None = None,
    set_up: Callable[[P], None] = lambda phone: None,
    password: str = LOGIN[1],
    networks: str = "127.0.0.1/32",
    language: str = "ko",
    limit_s: float = LIMIT_S,
    more: str = "",
    login: tuple[str, str] = LOGIN,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Site[P]]:
    """A phone in a call, set up by its profile, and a node that pushes to it.

    Args:
        family: whose.
        folder: for the node.
        profile: instead of the shipped one, for the sender; the phone keeps the shipped one's keys.
        set_up: changes the phone.
        password: that the sender believes in.
        networks: ``sip.phone.networks``.
        language: of the agent's screen.
        limit_s: ``phones.limit_s``.
        more: lines of the family's table.
        login: that the listener tells a Cisco phone to be right.
        tls: the phone's web server speaks TLS.
    """
    listens = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{listens}"
    shipped_profile = shipped().phones[family.profile]
    phone = family.make(keys_of(shipped_profile, url=url))
    phone.in_call = True
    set_up(phone)
    async with phone.on(tls=tls):
        table = f"""
[sip.phone]
networks = ["{networks}"]
[phones]
limit_s = {limit_s}
port = {listens}
url = "{url}"
[phones.families.{family.profile}]
push = "{family.method}"
user = "{LOGIN[0]}"
port = {phone.port}
{more}
"""
        agents = f"""phone_address = "127.0.0.1"
phone_model = "{shipped_profile.user_agent[0].example}"
screen_language = "{language}"
"""
        config = write_config(folder, free_port("127.0.0.1"), table, agents)
        settings = load_settings(config)
        passwords = {family.profile: password}
        catalogue = with_profile(profile or shipped_profile)
        tokens, pressed = load_tokens(settings), list[PhoneKey]()

        def take(key: PhoneKey) -> bool:
            pressed.append(key)
            done = PhoneKeyDone(key_id=key.key_id, outcome="done")
            asyncio.get_running_loop().call_soon(listener.answered, done)
            return True

        def keys(agent_id: str) -> tuple[str, str]:
            return url + tokens.path(agent_id, "end"), url + tokens.path(agent_id, "help")

        def shown(agent_id: str, text: str) -> tuple[bytes, str] | None:
            return desk.answer(agent_id, text)

        listener = Listener(settings, tokens, take, cisco_login=login, shown=shown)
        http, notes, told = HttpPush(settings, passwords), Notes(), list[ScreenPushed]()
        desk = Desk(
            settings, catalogue, passwords, http, notes, told.append, keys=keys, pages=listener
        )
        listener.start()
        try:
            yield Site(phone, settings, desk, http, told, notes, pressed)
        finally:
            await desk.close()
            await http.close()
            await listener.close()


every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.profile)


async def warned(site: Site[Any], level: int = 2) -> None:
    """A call whose level reached where phones show it."""
    site.begin()
    site.risk(level, "threat")
    await site.idle()


def reads(site: Site[Any]) -> str:
    text: str = site.phone.screen.text
    return text


def kinds(site: Site[Any]) -> list[tuple[str, bool]]:
    return [(told.kind, told.ok) for told in site.told]


async def refused_with(site: Site[Any]) -> str:
    await warned(site)
    assert [told.ok for told in site.told] == [False]
    assert site.phone.screen.history == []
    reason: str = site.told[0].reason
    assert "127.0.0.1" not in reason
    assert LOGIN[1] not in reason
    return reason
