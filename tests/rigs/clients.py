"""Both clients, used in the same way; and made-up tokens for tests of nodes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any

from quorumvault.client import AsyncClient
from quorumvault.client.processes import EachProcess
from quorumvault.crypto.tokens import DIGEST_BYTES, format_token


def made_token(words: str) -> str:
    """A well-formed token for "EPOCH:VALUE"."""
    epoch, _, value = words.partition(":")
    return format_token(int(epoch), hashlib.sha256(value.encode()).digest()[:DIGEST_BYTES])


class InLoop:
    """An AsyncClient with the interface of Client: in each process it has an event loop, where each call runs to its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._runners = EachProcess(asyncio.Runner(), asyncio.Runner)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            called: Coroutine[Any, Any, Any] = getattr(self._client, name)(*arguments, **options)
            return self._runners.get().run(called)

        return call

    def __enter__(self) -> InLoop:
        return self

    def __exit__(self, *error: object) -> None:
        with self._runners.get() as runner:
            runner.run(self._client.close())
