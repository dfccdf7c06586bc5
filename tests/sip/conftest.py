"""One half node for all scenarios: what one of them breaks, the next one shows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.sip.half_node import HalfNode, half_node


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def half(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HalfNode]:
    """A half node; RTP is missed after 5 s."""
    async with half_node(
        tmp_path_factory.mktemp("half"), sip="rtp_timeout_s = 5\nring_timeout_s = 5\n"
    ) as node:
        yield node
