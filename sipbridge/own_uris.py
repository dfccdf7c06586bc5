"""URIs of our own: what a leg of ours calls itself on each side."""

from __future__ import annotations

from callshield.settings import SIP_URI, SideSettings
from sipbridge.sip_message import SipHeaders, address_uri, display_name, uri_user


def own_uri(side: SideSettings, user: str) -> str:
    """A user at our own address on one side."""
    host = side.signalling_advertised
    host = f"[{host}]" if ":" in host else host
    return f"sip:{user}@{host}:{side.port}"


def own_from(side: SideSettings, headers: SipHeaders) -> str:
    """A From header: the caller's number and name at our own address on one side."""
    value = headers.first("From")
    user = uri_user(address_uri(value)) or "anonymous"
    name = "".join(c for c in display_name(value) if c not in '"\\<>' and c >= " ")[:64]
    uri = own_uri(side, user)
    if not SIP_URI.match(uri):
        uri = own_uri(side, "anonymous")
    return f'"{name}" <{uri}>' if name else f"<{uri}>"
