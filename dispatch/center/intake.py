"""From payloads to entries: what enters a centre, checked, encoded once, and put on the books."""

from __future__ import annotations

from itertools import count, repeat
from operator import length_hint
from typing import Any

from msgspec import Struct

from dispatch.terms.errors import ConfigError, DuplicateShard
from dispatch.terms.outcome import Failed
from dispatch.terms.shard import Batch, Entry, Origin, Shard, is_shard
from dispatch.wire.codec import Codec, NotDeliverable, undeliverable

BATCH = 32  # shards from which on they are put on the books together

__all__ = ("Intake", "Taken", "by_runner", "length_of")


class Taken(Struct):
    """Shards that were put on the books: their encoded bytes, outcomes of those that cannot travel, what ended it."""

    entries: list[Entry]
    failed: list[Failed]
    size: int
    batch: Batch | None = None  # instead of entries
    special: bool = False  # some travel with more than index and payload
    error: ConfigError | None = None


class Intake:
    """Turns payloads and Shards into Entries. Knows the codecs, the supplied ids in use, and the bytes held."""

    def __init__(self, key: int, codecs: dict[str, Codec]) -> None:
        self._codecs = codecs
        self._default = next(iter(codecs.values()))
        self.origin = Origin(key, self._default.decode_payload)
        self._origins = {name: Origin(key, codec.decode_payload) for name, codec in codecs.items()}
        self._ids: set[str] = set()
        self.read = 0

    def take(self, payloads: list[Any], now: float, *, apart: bool = False) -> Taken:
        """Put payloads on the books; with `apart` each as an Entry.

        The happy path is a handful of C loops; a bunch with a Shard or an unencodable payload is taken one by one.
        """
        if Shard not in map(type, payloads):
            try:
                encoded = self._default.encode_all(payloads)
            except NotDeliverable:
                pass
            else:
                start, self.read = self.read, self.read + len(encoded)
                size = sum(map(len, encoded))
                if not apart and len(encoded) >= BATCH:
                    return Taken([], [], size, batch=Batch(start, encoded, self.origin, now))
                entries = list(map(Entry, count(start), encoded, repeat(self.origin), repeat(now)))
                return Taken(entries, [], size)
        taken = Taken([], [], 0, special=True)
        for payload in payloads:
            try:
                entry, failed, size = self.one(payload, now)
            except ConfigError as error:
                taken.error = error
                break
            taken.size += size
            if failed is None:
                taken.entries.append(entry)
            else:
                taken.failed.append(failed)
        return taken

    def one(
        self, payload: Any, now: float, *, timeout: float | None = None
    ) -> tuple[Entry, Failed | None, int]:
        """The entry for one payload or Shard, its outcome if it cannot travel, its encoded bytes.

        Raises ConfigError if a Shard's fields make no sense, DuplicateShard if its id is in use.
        """
        if timeout is None and not is_shard(payload):
            try:
                data = self._default.encode(payload)
            except NotDeliverable:
                pass  # told below
            else:
                self.read += 1
                return Entry(self.read - 1, data, self.origin, now), None, len(data)
        shard: Shard[Any] = payload if is_shard(payload) else Shard(payload, timeout=timeout)
        self._check(shard)
        codec = self._codecs[shard.runner] if shard.runner else self._default
        limit = shard.timeout if timeout is None else timeout
        entry = Entry(self.read, b"\xc0", self._origins[codec.name], now, shard.id, limit, shard.runner)
        entry.special = bool(shard.id) or limit is not None
        self.read += 1
        try:
            data = codec.encode(shard.payload)
        except NotDeliverable as error:
            entry.unencoded = shard.payload
            return entry, Failed(fault=undeliverable(f"shard {entry.shard_id}", str(error)), entry=entry), 0
        entry.payload = data
        if shard.id:
            self._ids.add(shard.id)
        return entry, None, len(data)

    def _check(self, shard: Shard[Any]) -> None:
        name = f"shard {shard.id or self.read}"
        if not isinstance(shard.id, str):
            raise ConfigError(f"{name}: id", shard.id, "it must be a string")
        if not shard.id.isascii() and not _is_unicode(shard.id):
            raise ConfigError(
                f"shard {self.read}: id", ascii(shard.id), "it holds lone surrogates; escape them"
            )
        if shard.id in self._ids:
            raise DuplicateShard(shard.id)
        if shard.timeout is not None and not shard.timeout > 0:
            raise ConfigError(f"{name}: timeout", shard.timeout, "it must be more than 0 seconds")
        if shard.runner and shard.runner not in self._codecs:
            known = ", ".join(sorted(self._codecs))
            raise ConfigError(f"{name}: runner", shard.runner, f"this centre's init_runners gives: {known}")

    def unread(self, entries: list[Entry]) -> None:
        """The newest entries are taken back: it is as if they had not been read."""
        self.read -= len(entries)
        self._ids.difference_update(entry.id for entry in entries)

    def forget(self, outcomes: list[Any]) -> None:
        """Settled shards give their ids back: uniqueness is checked among unfinished ones, so memory is bounded."""
        if self._ids:
            self._ids.difference_update(outcome.entry.id for outcome in outcomes)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def by_runner(entries: list[Entry]) -> list[list[Entry]]:
    """The entries in groups of one runner class each."""
    if not any(entry.runner for entry in entries):
        return [entries]
    groups: dict[str | None, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.runner, []).append(entry)
    return list(groups.values())


def length_of(source: object) -> int | None:
    """How many shards a source says that it has: a list does, a generator does not."""
    try:
        length = length_hint(source, -1)
    except Exception:  # noqa: BLE001  (user code, and a hint is worth no error)
        return None
    return length if length >= 0 else None
