"""One half node for all scenarios: what one of them breaks, the next one shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.sip.half_node import DIGEST_AGENTS, PASSWORD, HalfNode, half_node
from tests.sip.test_liars_glare import play_glares


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes 45 s of waiting is asked about last."""
    items.sort(key=lambda item: "glare" in getattr(item, "fixturenames", ()))


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def glares(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[asyncio.Task[dict[str, str]] | None]:
    """The calls of test_liars_glare, which wait for most of a minute while others are played."""
    if not any(item.name.startswith("test_a_glare") for item in request.session.items):
        yield None
        return
    task = asyncio.create_task(play_glares(tmp_path_factory.mktemp("glares")))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def half(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HalfNode]:
    """A half node; RTP is missed after 5 s. Agents whose phones ask for a password have one."""
    folder = tmp_path_factory.mktemp("half")
    secret = folder / "secret"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    secret.chmod(0o600)
    knows = f'username = "callshield"\npassword_file = "{secret}"\n'
    agents = dict.fromkeys((*DIGEST_AGENTS, "unbelieved"), knows)
    agents["realm"] = knows + 'realm = "phones"\n'
    async with half_node(
        folder, sip="rtp_timeout_s = 5\nring_timeout_s = 5\n", agents=agents
    ) as node:
        yield node
