"""Who may call, be called and be referred to; what of an INVITE is fixed when it is taken."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import structlog

from callshield.messages import Direction, LegName
from callshield.messages_notice import Spared
from callshield.settings import Settings
from callshield.settings_notice import Language, in_list
from callshield.settings_sip import PeerSettings, uri_transport
from sipbridge.call_plan import CallPlan, Place
from sipbridge.caller_choice import NoticeKeys
from sipbridge.help_plan import help_plan
from sipbridge.leg_policy import LegPolicy, caller_policy, phone_policy
from sipbridge.offer_answer import offered_onward, read_offer
from sipbridge.prompt_catalogue import Prompt, Prompts
from sipbridge.routing import (
    Refused,
    Route,
    Routing,
    Running,
    calling_numbers,
)
from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    max_forwards,
    over_tls,
    source_host,
    uri_host_port,
    uri_user,
    via_hosts,
)

log = structlog.get_logger()

#: Our header: names the call on both legs and shows a loop.
CALL_ID_HEADER = "X-Callshield-Call-ID"
#: What a PBX may call its channel; anything else is cut out.
_NOT_IN_A_CHANNEL = re.compile(r"[^A-Za-z0-9@/;:._+*#-]")
CHANNEL_LENGTH = 128
_TEL = re.compile(r"tel:([^;>\s]{1,64})", re.IGNORECASE)
#: What a PBX may say of a prompt's version.
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}")


def _shown(headers: SipHeaders) -> set[str]:
    """Every number by which the network names the caller, ``tel:`` URIs (RFC 3966) too."""
    values = [headers.first("From"), *headers.all("P-Asserted-Identity")]
    tel = {match[1] for value in values if (match := _TEL.match(address_uri(value)))}
    return {*calling_numbers(headers), *tel}


def channel_name(value: str) -> str:
    """What a PBX says its channel is called, safe to hand on: no blanks, quotes or line ends."""
    return _NOT_IN_A_CHANNEL.sub("", value)[:CHANNEL_LENGTH]


def _heard(prompt: Prompt, attested: Collection[str]) -> bool:
    """The PBX played this very prompt, or each of those that it would be played for."""
    stands_for = prompt.instead_of or (prompt.prompt_id,)
    return prompt.prompt_id in attested or all(one in attested for one in stands_for)


class Admission:
    """The configuration's word on INVITEs and on targets of transfers.

    Args:
        settings: the node's configuration.
        prompts: checked announcements.
    """

    def __init__(self, settings: Settings, prompts: Prompts) -> None:
        self._settings = settings
        self._prompts = prompts
        if prompts.keys_unsaid:
            log.warning("notice_names_no_key", reason=prompts.keys_unsaid)
        self._help_plans = {
            language: help_plan(settings, prompts.of(language).help)
            for language in settings.notice.spoken
        }
        self._routing = Routing(settings)
        #: What our own requests say in their Via: one that comes back with it has gone in a circle.
        self._own_vias = {
            (side.signalling_advertised, port)
            for side in (settings.sip.pbx, settings.sip.phone)
            for port in (side.port, side.tls.port if side.tls.enabled else side.port)
        }
        self._peers = [
            (ipaddress.ip_network(network), peer)
            for peer in settings.peers
            for network in peer.networks
        ]

    # --------------------------------------------------------------------------------- hosts

    def peer_of(self, source: str, *, tls: bool) -> PeerSettings | None:
        """The configured PBX that a request from ``host:port`` comes from.

        Args:
            source: of the request.
            tls: it came over TLS; a peer that has to (``tls_only``) is none without.
        """
        try:
            address = ipaddress.ip_address(source_host(source))
        except ValueError:
            return None
        for network, peer in self._peers:
            if address in network and (tls or not peer.tls_only):
                return peer
        return None

    def is_peer(self, host: str) -> bool:
        """Whether calls may come from this address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network, _ in self._peers)

    def may_be_referred_to(self, host: str) -> bool:
        """A configured PBX, an address of the phones' side, or our own: nobody else is called."""
        sip = self._settings.sip
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in sip.transfer_hosts
        own = {side.signalling_advertised for side in (sip.pbx, sip.phone)}
        own |= {side.bind for side in (sip.pbx, sip.phone)}
        return (
            str(address) in own
            or self.is_peer(host)
            or host in sip.transfer_hosts
            or any(address in ipaddress.ip_network(n, strict=False) for n in sip.phone.networks)
            or any(uri_host_port(a.uri)[0] == host for a in self._settings.agents.values())
        )

    def may_transfer_to(self, agent_id: str, user: str) -> bool:
        """Whether an agent's phone may have us call this user at the PBX."""
        return self._routing.may_transfer_to(agent_id, user)

    # -------------------------------------------------------------------------------- INVITEs

    def route(
        self,
        headers: SipHeaders,
        peer: PeerSettings | None,
        *,
        unavailable: str,
        calls: Collection[str],
        running: Iterable[Running] = (),
    ) -> Route | Refused:
        """Whom an INVITE connects, or why it cannot be taken, before its body is looked at.

        Args:
            headers: of the INVITE.
            peer: who sent it.
            unavailable: why the node takes no calls now; ``""`` when it does.
            calls: ids of the running ones.
            running: what of them counts.
        """
        if peer is None:
            return Refused(403, "unknown_peer")
        if unavailable:
            return Refused(503, unavailable)
        if len(calls) >= self._settings.sip.admission_limit:
            limit = str(self._settings.sip.admission_limit)
            return Refused(503, "admission_limit", limit)
        if max_forwards(headers) <= 0:
            return Refused(483, "too_many_hops")
        if headers.first(CALL_ID_HEADER) in calls:
            return Refused(482, "loop", "call_id")
        if via_hosts(headers) & self._own_vias:
            return Refused(482, "loop", "via")
        route = self._routing.route(headers, peer)
        if isinstance(route, Refused):
            return route
        numbers, outgoing = calling_numbers(headers), 0
        for call in running:
            outgoing += bool(call.dialled) and call.agent_id == route.agent_id
            if not call.is_repeated_by(route, numbers):
                continue
            if self.peer_of(uri_host_port(call.called_uri)[0], tls=True) is peer:
                return Refused(482, "loop", "same_call_rings")
        if route.dialled and outgoing >= self._settings.outbound.calls_per_agent:
            return Refused(403, "too_many_outgoing", route.agent_id)
        return route

    def plan(
        self, call_id: str, headers: SipHeaders, message: str, peer: PeerSettings, route: Route
    ) -> CallPlan:
        """What is fixed for the whole call.

        Raises:
            OfferRefused: the call cannot be: 488.
        """
        sip, settings = self._settings.sip, self._settings
        caller, agent = self._policies(headers, route)
        incoming, outgoing = (
            (caller, agent) if route.incoming is LegName.CALLER else (agent, caller)
        )
        offer = read_offer(message, incoming)
        offered_onward(offer, outgoing, incoming)  # refused now rather than with open ports
        language = self._language(headers, peer, route)
        prompts = self._prompts.of(language)
        attested = self._attested(headers, peer, route, prompts.notice)
        plan = CallPlan(
            call_id=call_id,
            agent_id=route.agent_id,
            pbx_call_id=(headers.first(sip.pbx_call_id_header) or headers.first("Call-ID"))[:128],
            pbx=peer.name,
            offer=offer,
            pbx_address=sip.pbx.media_advertised,
            phone_address=sip.phone.media_advertised,
            notice=(),
            closing=prompts.closing,
            warnings=prompts.warnings,
            notice_tone=self._prompts.notice_tone,
            tap_allowed=False,
            ring_timeout_s=settings.outbound.ring_timeout_s if route.trunk else sip.ring_timeout_s,
            caller_policy=caller,
            phone_policy=agent,
            levelling=settings.ear.levelling,
            soften_level=settings.ear.soften_from_level,
            agent_hears=settings.notice.agent_hears,
            ear_can_be_set=settings.media.plane == "relay",
            direction=route.direction,
            incoming=route.incoming,
            called_uri=route.called_uri,
            trunk=route.trunk,
            dialled=route.dialled,
            pbx_channel=channel_name(headers.first(sip.pbx_channel_header)),
        )
        if route.direction is Direction.INTERNAL:
            return plan
        notice = tuple(p for p in prompts.notice if not _heard(p, attested))
        return replace(
            plan,
            notice=notice,
            place=self._place(headers, peer, route, offered=offer is not None and bool(notice)),
            ringing=self._prompts.ringing,
            attested=attested,
            attested_purposes=prompts.attested_purposes(attested),
            tap_allowed=settings.detector.enabled,
            record_allowed=settings.recording.enabled,
            help=self._help_plans[language],
            call_back=prompts.call_back,
            keys=NoticeKeys(
                settings.notice.objection_key,
                settings.notice.consent_key,
                settings.notice.key_window_s,
            ),
            objection_accepted=prompts.objection_accepted,
            record_on_request=prompts.recording,
            resumed=prompts.resumed,
            spared=self._spared(headers, peer, route),
        )

    def _policies(self, headers: SipHeaders, route: Route) -> tuple[LegPolicy, LegPolicy]:
        """What may be agreed on the caller's leg and on the agent's."""
        settings, tls = self._settings, over_tls(headers)
        agent = settings.agents[route.agent_id]
        if route.incoming is LegName.CALLER:
            return caller_policy(settings, over_tls=tls), phone_policy(settings, agent)
        called_over_tls = uri_transport(route.called_uri) == "tls"
        return (
            caller_policy(settings, over_tls=called_over_tls),
            phone_policy(settings, agent, over_tls=tls),
        )

    def _place(
        self, headers: SipHeaders, peer: PeerSettings, route: Route, *, offered: bool
    ) -> Place:
        """Where this caller can hear the notice, as near to the configuration as may be.

        Args:
            headers: of the INVITE.
            peer: who sent it.
            route: where to.
            offered: there is a notice to be heard, and an offer to answer.
        """
        wanted = self._settings.notice.place
        if route.incoming is LegName.AGENT or not offered:
            return "answer"
        if wanted == "upstream":
            log.warning("notice_not_attested", peer=peer.name)
            return "answer"
        if wanted == "early_media":
            tags = ",".join([*headers.all("Supported"), *headers.all("Require")])
            # Without it nobody knows when the caller's side has our description: the first words
            # would be lost.
            if "100rel" not in (tag.strip().lower() for tag in tags.split(",")):
                log.info("notice_on_answer", peer=peer.name, reason="no_100rel")
                return "answer"
        return wanted

    def _language(self, headers: SipHeaders, peer: PeerSettings, route: Route) -> Language:
        """Of the announcements: the caller's choice as a trusted PBX tells it, or by the number
        that was dialled. Whoever an agent calls hears the usual one."""
        notice = self._settings.notice
        if route.incoming is LegName.AGENT:
            return notice.language
        chosen = headers.first(notice.language_header) if peer.attests_notice else ""
        called = headers.first(notice.called_number_header) or headers.first("To")
        uri = address_uri(called)
        tel = _TEL.match(uri)
        number = tel[1] if tel else uri_user(uri).split(";", 1)[0]
        return notice.language_of(number, chosen, self._settings.ringback.country_code)

    def _spared(self, headers: SipHeaders, peer: PeerSettings, route: Route) -> Spared:
        """Whether nothing is done automatically with whoever is not the agent, and why."""
        callers = self._settings.callers
        inbound = route.incoming is LegName.CALLER
        numbers = _shown(headers) if inbound else {route.dialled}
        country = self._settings.ringback.country_code
        if any(in_list(number, callers.relay_services, country) for number in numbers):
            return "relay_service"
        if any(in_list(number, callers.never_automatic, country) for number in numbers):
            return "never_automatic"
        marked = headers.first(callers.vulnerable_header).strip().lower() == "yes"
        return "vulnerable" if marked and peer.attests_notice and inbound else ""

    def _attested(
        self, headers: SipHeaders, peer: PeerSettings, route: Route, notice: Sequence[Prompt]
    ) -> dict[str, str]:
        """Prompts of the notice, with versions, that a trusted PBX says it played; a stranger's
        word is ignored.

        A PBX may call a notice that names a key as it is called without.
        So is anybody's about a call that goes out: nobody has answered who could have heard them.
        """
        value = headers.first(self._settings.notice.upstream_header)
        if not value:
            return {}
        if not peer.attests_notice or route.incoming is LegName.AGENT:
            log.warning("notice_attestation_ignored", peer=peer.name)
            return {}
        named = {}
        for part in value.split(","):
            prompt_id, *parameters = (one.strip() for one in part.split(";"))
            version = next((one[2:] for one in parameters if one.startswith("v=")), "")
            named[prompt_id] = version if _VERSION.fullmatch(version) else ""
        return {
            prompt_id: named[prompt_id]
            for prompt in notice
            for prompt_id in dict.fromkeys((prompt.prompt_id, *prompt.instead_of))
            if prompt_id in named
        }
