"""``callshield doctor``: the edge, as far as can be seen before Kamailio runs."""

from __future__ import annotations

import shutil

from callshield.edge_command import check_files
from callshield.edge_users import read_users
from callshield.settings import Settings
from sipbridge.tls_files import check_tls_files


def edge(settings: Settings) -> str:
    """Passwords, certificates, and whether Kamailio can read what would be rendered.

    Raises:
        CallshieldError: one of them cannot be used.
    """
    table = settings.edge
    if not table.enabled:
        return "off"
    users = read_users(table)
    if table.tls.enabled:
        check_tls_files(table.tls, "edge.tls")
    checked = shutil.which("kamailio", path="/usr/sbin:/usr/bin") is not None
    if checked:
        check_files(settings)
    lacking = sorted(set(settings.agents) - set(users))
    return (
        f"{len(table.nodes)} nodes, {len(users)} phones with a password"
        + (f" (none for {', '.join(lacking[:10])})" if lacking else "")
        + ("; Kamailio reads its files" if checked else "; no Kamailio here to read its files")
    )
