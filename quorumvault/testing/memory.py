"""A vault in memory: it gives the tokens and answers of a real vault, without replicas. Nothing outlives the process."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_token, format_tokens
from quorumvault.errors import EpochAhead
from quorumvault.model import FIRST_EPOCH, Owner
from quorumvault.server.coordinator.vault import Missing, Retokenized, Take, Tokenized


class MemoryVault:
    """Implements Vault. If ``failure`` is not None, every operation raises it."""

    def __init__(self, keyring: Keyring) -> None:
        self.failure: Exception | None = None
        self._keyring = keyring
        self._values: dict[tuple[Owner, str], bytes] = {}
        self._epochs: defaultdict[Owner, int] = defaultdict(lambda: FIRST_EPOCH)

    def forget(self) -> None:
        """Starts over: no values, and every owner in the first epoch."""
        self._values.clear()
        self._epochs.clear()

    async def begin(self, operation: str, items: Iterable[Any]) -> None:
        """Called at the start of every operation."""
        if self.failure is not None:
            raise self.failure

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized:
        await self.begin("tokenize", canonicals)
        return self._commit(owner, canonicals)

    def _commit(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized:
        epoch = self._epochs[owner]
        tokens = format_tokens(epoch, self._keyring.epoch_keys(owner, epoch).digests(canonicals))
        kept = [self._values.setdefault((owner, token), value) for token, value in zip(tokens, canonicals, strict=True)]
        fitting = zip(tokens, kept, canonicals, strict=True)
        return Tokenized(epoch, [token if held == value else None for token, held, value in fitting])

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes | Missing]:
        await self.begin("detokenize", tokens)
        return self._read(owner, tokens, take)

    def _read(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes | Missing]:
        answers = [self.look_up(owner, token) for token in tokens]
        take(sum(map(len, {answer for answer in answers if isinstance(answer, bytes)})))
        return answers

    def look_up(self, owner: Owner, token: str) -> bytes | Missing:
        return self._values.get((owner, token), Missing.NOT_FOUND)

    async def retokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> Retokenized:
        await self.begin("retokenize", tokens)
        values = self._read(owner, tokens, take)
        written = self._commit(owner, [value for value in values if isinstance(value, bytes)])
        fresh = iter(written.tokens)
        moved = [next(fresh) or Missing.COLLISION if isinstance(value, bytes) else value for value in values]
        return Retokenized(written.epoch, moved)

    async def epoch(self, owner: Owner) -> int:
        await self.begin("epoch", [])
        return self._epochs[owner]

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        await self.begin("derive", canonicals)
        keys = {epoch: self._keyring.epoch_keys(owner, epoch) for epoch in range(FIRST_EPOCH, last + 1)}
        return [[format_token(epoch, *keys[epoch].digests([value])) for epoch in keys] for value in canonicals]

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        await self.begin("rotate", [from_epoch])
        if from_epoch > self._epochs[owner]:
            raise EpochAhead(active_epoch=self._epochs[owner])
        self._epochs[owner] = max(self._epochs[owner], from_epoch + 1)
        return self._epochs[owner]
