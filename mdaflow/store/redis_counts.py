"""Counts of tokens in two classes of messages, in a Redis server (see redis.py for its ways).

The same as counts.py, for the machines of a site. What belongs together is in three hashes: the
tokens, the names of messages, and the totals. A script of the server learns a message, at one go or
not at all. What has to go when there is no room is chosen from tokens, or names, taken at random.

Needs Redis 6.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from struct import pack
from typing import Any

from .counts import MOST_NAMES, MOST_TOKENS, WORTH, Lesson, Pair
from .redis import RedisStore

_CLASSES = {True: b"s", False: b"h", None: b"-"}
_LEARN = """
local names, tokens, totals = KEYS[1], KEYS[2], KEYS[3]
local name, class = ARGV[1], ARGV[2]
local before = string.sub(redis.call('HGET', names, name) or '-', 1, 1)
if before == class then return 0 end
local function change(of) return (class == of and 1 or 0) - (before == of and 1 or 0) end
local more = {s = change('s'), h = change('h')}
local seen = redis.call('HINCRBY', totals, 'seen', 1)
redis.call('HINCRBY', totals, 's', more.s)
redis.call('HINCRBY', totals, 'h', more.h)
for i = 6, #ARGV do
  local known = redis.call('HGET', tokens, ARGV[i])
  local spam, ham = string.match(known or '0 0', '(%d+) (%d+)')
  spam, ham = math.max(0, spam + more.s), math.max(0, ham + more.h)
  if spam + ham > 0 then
    redis.call('HSET', tokens, ARGV[i], string.format('%d %d %d', spam, ham, seen))
  elseif known then
    redis.call('HDEL', tokens, ARGV[i])
  end
end
if class == '-' then
  redis.call('HDEL', names, name)
else
  redis.call('HSET', names, name, class .. ' ' .. seen)
end
local function make_room(hash, most, slice, worth)
  if redis.call('HLEN', hash) <= most then return end
  local some = redis.call('HRANDFIELD', hash, slice, 'WITHVALUES')
  local rows = {}
  for i = 1, #some, 2 do
    rows[#rows + 1] = {some[i], worth(some[i + 1])}
  end
  table.sort(rows, function(a, b) return a[2] < b[2] end)
  for i = 1, math.max(1, math.floor(#rows / 4)) do
    redis.call('HDEL', hash, rows[i][1])
  end
end
make_room(tokens, tonumber(ARGV[3]), 4000, function(value)
  local spam, ham, last = string.match(value, '(%d+) (%d+) (%d+)')
  return last + ARGV[5] * (spam + ham)
end)
make_room(names, tonumber(ARGV[4]), 400, function(value)
  return tonumber(string.match(value, '%d+'))
end)
return 1
"""


class RedisCounts:
    """As SqliteCounts. `whose` counts they are is part of their names there."""

    def __init__(
        self,
        store: RedisStore,
        whose: str,
        most: int = MOST_TOKENS,
        names: int = MOST_NAMES,
    ) -> None:
        self._store = store
        self._most = most
        self._most_names = names
        self._names, self._tokens, self._totals = (
            store.named(f"{what} {whose}") for what in ("names", "tokens", "totals")
        )

    def totals(self) -> Pair:
        """How many messages of each class were learned: spam, ham."""
        return self._pair(self._store.ask("HMGET", self._totals, "s", "h"))

    def get(self, keys: Sequence[int]) -> Mapping[int, Pair]:
        """Of those tokens that are known, in how many messages of each class they were."""
        if not keys:
            return {}
        found = self._store.ask("HMGET", self._tokens, *map(_field, keys))
        if not isinstance(found, list) or len(found) != len(keys):
            raise self._store.nonsense(found)
        pairs = zip(keys, found, strict=True)
        return {key: self._pair(value.split()[:2]) for key, value in pairs if value}

    def class_of(self, name: bytes) -> bool | None:
        """What the message of this name was learned as: whether as spam; None: not at all."""
        found = self._store.ask("HGET", self._names, name)
        return None if found is None else found[:1] == b"s"

    def learn(self, lessons: Sequence[Lesson]) -> list[bool]:
        """Count messages, each all or not at all; of each, whether that is new. A message is
        counted by its name: as spam, as ham, or (None) no more."""
        return list(starmap(self._learn, lessons))

    def close(self) -> None:
        """The connection is the store's."""

    def _learn(self, name: bytes, spam: bool | None, keys: Iterable[int]) -> bool:
        hashes = self._names, self._tokens, self._totals
        how = name, _CLASSES[spam], self._most, self._most_names, WORTH
        tokens = map(_field, dict.fromkeys(keys))
        return bool(self._store.ask("EVAL", _LEARN, len(hashes), *hashes, *how, *tokens))

    def _pair(self, found: Any) -> Pair:
        try:
            spam, ham = (int(value or 0) for value in found)
        except (TypeError, ValueError) as error:
            raise self._store.nonsense(found) from error
        return spam, ham


def _field(key: int) -> bytes:
    return pack(">q", key)
