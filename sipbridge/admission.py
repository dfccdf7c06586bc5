"""Who may call, be called and be referred to; what of an INVITE is fixed when it is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

import structlog

from callshield.settings import PeerSettings, Settings
from sipbridge.call_plan import CallPlan
from sipbridge.help_plan import help_plan
from sipbridge.leg_policy import caller_policy, phone_policy
from sipbridge.offer_answer import offered_to_phone, read_offer
from sipbridge.prompt_catalogue import Prompts
from sipbridge.sip_message import (
    SipHeaders,
    max_forwards,
    over_tls,
    request_uri_user,
    source_host,
    uri_host_port,
)

log = structlog.get_logger()

#: Our header: names the call on both legs and shows a loop.
CALL_ID_HEADER = "X-Callshield-Call-ID"


class Admission:
    """The configuration's word on INVITEs and on targets of transfers.

    Args:
        settings: the node's configuration.
        prompts: checked announcements.
    """

    def __init__(self, settings: Settings, prompts: Prompts) -> None:
        self._settings = settings
        self._prompts = prompts
        self._help_plan = help_plan(settings, prompts.help)
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

    # -------------------------------------------------------------------------------- INVITEs

    def refusal(
        self,
        headers: SipHeaders,
        peer: PeerSettings | None,
        *,
        unavailable: str,
        calls: Collection[str],
    ) -> tuple[int, str, str] | None:
        """Why an INVITE cannot be taken, before its body is looked at.

        Args:
            headers: of the INVITE.
            peer: who sent it.
            unavailable: why the node takes no calls now; ``""`` when it does.
            calls: ids of the running ones.

        Returns:
            status, reason and detail for the log; None when it can be taken.
        """
        if peer is None:
            return 403, "unknown_peer", ""
        if unavailable:
            return 503, unavailable, ""
        if len(calls) >= self._settings.sip.admission_limit:
            return 503, "admission_limit", str(self._settings.sip.admission_limit)
        if max_forwards(headers) <= 0:
            return 483, "too_many_hops", ""
        if headers.first(CALL_ID_HEADER) in calls:
            return 482, "loop", ""
        agent_id = request_uri_user(headers.start_line)
        if agent_id not in self._settings.agents:
            return 404, "unknown_agent", ""
        return None

    def plan(self, call_id: str, headers: SipHeaders, message: str, peer: PeerSettings) -> CallPlan:
        """What is fixed for the whole call.

        Raises:
            OfferRefused: the call cannot be: 488.
        """
        sip = self._settings.sip
        agent_id = request_uri_user(headers.start_line)
        caller = caller_policy(self._settings, over_tls=over_tls(headers))
        phone = phone_policy(self._settings, self._settings.agents[agent_id])
        offer = read_offer(message, caller)
        offered_to_phone(offer, phone, caller)  # refused now rather than after the ports are open
        attested = self._attested(headers, peer)
        return CallPlan(
            call_id=call_id,
            agent_id=agent_id,
            pbx_call_id=(headers.first(sip.pbx_call_id_header) or headers.first("Call-ID"))[:128],
            pbx=peer.name,
            offer=offer,
            pbx_address=sip.pbx.media_advertised,
            phone_address=sip.phone.media_advertised,
            notice=tuple(p for p in self._prompts.notice if p.prompt_id not in attested),
            closing=self._prompts.closing,
            warnings=self._prompts.warnings,
            notice_tone=self._prompts.notice_tone,
            attested=attested,
            tap_allowed=self._settings.detector.enabled,
            ring_timeout_s=sip.ring_timeout_s,
            caller_policy=caller,
            phone_policy=phone,
            record_allowed=self._settings.recording.enabled,
            levelling=self._settings.ear.levelling,
            soften_level=self._settings.ear.soften_from_level,
            agent_hears=self._settings.notice.agent_hears,
            help=self._help_plan,
        )

    def _attested(self, headers: SipHeaders, peer: PeerSettings) -> tuple[str, ...]:
        """Configured prompts that a trusted PBX says it played; a stranger's word is ignored."""
        value = headers.first(self._settings.notice.upstream_header)
        if not value:
            return ()
        if not peer.attests_notice:
            log.warning("notice_attestation_ignored", peer=peer.name)
            return ()
        named = {part.split(";", 1)[0].strip() for part in value.split(",")}
        return tuple(p.prompt_id for p in self._prompts.notice if p.prompt_id in named)
