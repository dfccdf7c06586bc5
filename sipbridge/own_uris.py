"""URIs of our own: what a leg of ours calls itself on each side."""

from __future__ import annotations

from callshield.outbound_settings import TrunkSettings
from callshield.settings_sip import SIP_URI, SideSettings
from sipbridge.sip_message import SipHeaders, address_uri, display_name, uri_user


def own_uri(side: SideSettings, user: str) -> str:
    """A user at our own address on one side."""
    host = side.signalling_advertised
    host = f"[{host}]" if ":" in host else host
    return f"sip:{user}@{host}:{side.port}"


def own_contact(side: SideSettings, transport: str) -> str:
    """Where requests about one of ours would come: our address on one side and transport."""
    host = side.signalling_advertised
    host = f"[{host}]" if ":" in host else host
    port = side.tls.port if transport == "tls" else side.port
    parameter = "" if transport == "udp" else f";transport={transport}"
    return f"sip:callshield@{host}:{port}{parameter}"


def own_from(side: SideSettings, headers: SipHeaders) -> str:
    """A From header: the caller's number and name at our own address on one side."""
    value = headers.first("From")
    user = uri_user(address_uri(value)) or "anonymous"
    name = "".join(c for c in display_name(value) if c not in '"\\<>' and c >= " ")[:64]
    uri = own_uri(side, user)
    if not SIP_URI.match(uri):
        uri = own_uri(side, "anonymous")
    return f'"{name}" <{uri}>' if name else f"<{uri}>"


def trunk_identity(
    side: SideSettings, trunk: TrunkSettings, headers: SipHeaders
) -> tuple[str, list[tuple[str, str]]]:
    """Who we say calls, over a line: the From header, and others about it.

    Args:
        side: ours towards the line.
        trunk: the line; its caller id, if it has one, goes before what the agent's INVITE says.
        headers: of the agent's INVITE.
    """
    if not trunk.caller_id:
        return own_from(side, headers), []
    shown = f"<{own_uri(side, trunk.caller_id)}>"
    if trunk.caller_id_in == "from":
        return shown, []
    named = own_uri(side, trunk.username or trunk.caller_id)
    return f"<{named}>" if SIP_URI.match(named) else shown, [("P-Asserted-Identity", shown)]
