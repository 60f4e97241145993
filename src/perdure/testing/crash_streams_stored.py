"""What a host and the object of the subscriptions have stored, for the crash simulator to compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..storage.store import OpenObject
from ..stream_hosts.hosted import STREAM_SEQ, HostedStream
from ..streams.producers import CLOSED_BY, NOTE_PREFIX, decode_closer, decode_state
from ..streams.stream import Stream
from ..streams.subscription_state import Link, SubscriptionState
from ..wire.durable_streams import Producer
from .crash_model import check_rows, read_entries
from .crash_streams_model import HostState, StreamState


def read_host(opened: OpenObject, now_ms: int) -> HostState:
    """The host's whole state, read through its storage; without ``exists``, and without what has expired."""
    check_rows(opened)
    storage = opened.storage
    names = [row[0] for row in storage.database.execute("SELECT name FROM _perdure_streams")]
    state = HostState(
        {name: read_stream(opened, name) for name in names}, read_pointers(opened), read_written(opened)
    )
    forks = [stream.base for stream in state.streams.values()]
    for name, stream in state.streams.items():
        stored = storage.stream_table.get(name)
        assert stored is not None
        assert stored.forks == forks.count(name), f"{name!r}: {forks.count(name)} forks, counted {stored.forks}"
        assert stored.forks or not stream.hidden, f"{name!r} is hidden without a fork"
    _check_alarm(opened, state, now_ms)
    state.expire(now_ms)
    return state


def read_stream(opened: OpenObject, name: str) -> StreamState:
    """One stream of a host, which must be there."""
    storage = opened.storage
    table = storage.stream_table
    stored = table.get(name)
    assert stored is not None
    hosted = HostedStream(Stream(stored, storage, lambda stream: None))
    options = hosted.options
    rows = storage.database.execute("SELECT key FROM _perdure_notes WHERE stream = ?", (stored.number,))
    keys = {row[0] for row in rows} | set(stored.notes)
    producers = []
    for key in sorted(keys):
        if key.startswith(NOTE_PREFIX):
            kept = decode_state(table.note(stored, key))
            assert kept is not None
            producers.append(Producer(key.removeprefix(NOTE_PREFIX), *kept))
    closer = decode_closer(table.note(stored, CLOSED_BY))
    fork = None
    if options.fork_source is not None:
        fork = (options.fork_source, options.fork_offset or "", options.fork_sub_offset)
    return StreamState(
        stored.content_type,
        read_entries(table, stored),
        stored.first,
        stored.closed,
        tuple(producers),
        None if closer is None else Producer(*closer),
        table.note(stored, STREAM_SEQ),
        None if stored.base is None else stored.base.name,
        stored.hidden,
        fork,
        options.ttl_s,
        options.expires_at_ms,
        hosted.ends_ms,
    )


def read_pointers(opened: OpenObject) -> dict[str, int]:
    """Where forks live whose home this host is."""
    return {key.removeprefix("at:"): number for key, number in opened.storage.list("at:", limit=1_000_000).items()}


def read_written(opened: OpenObject) -> dict[str, bytes | None]:
    """What the host's process is writing, and how each ends if the process dies."""
    return {row["path"]: row["failure"] for row in opened.storage.sql("SELECT path, failure FROM written")}


def _check_alarm(opened: OpenObject, state: HostState, now_ms: int) -> None:
    """Every stream that expires is due, and the alarm rings by then; what is being written wakes the host."""
    storage = opened.storage
    due = {row["path"]: row["at_ms"] for row in storage.sql("SELECT path, at_ms FROM expiring")}
    mortal = {name for name, stream in state.streams.items() if stream.ends_ms is not None and not stream.hidden}
    assert mortal <= due.keys(), f"nothing removes {mortal - due.keys()} in time"
    alarm_ms = storage.get_alarm()
    if due:
        latest_ms = max(min(due.values()), now_ms + 1)
        assert alarm_ms is not None, f"no alarm is set for {due}"
        assert alarm_ms <= latest_ms, f"the alarm rings at {alarm_ms} for {due}"
    if state.written:
        assert storage.read_meta("held") is not None, f"nothing wakes the host for {list(state.written)}"


@dataclass(frozen=True)
class SubscriptionsState:
    """The object that keeps subscriptions: each as plain data, by id; its keys and other values."""

    subscriptions: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    exists: bool = False


def read_subscriptions(opened: OpenObject) -> SubscriptionsState:
    """What is stored of subscriptions (``exists`` is left out)."""
    links: dict[str, dict[str, Any]] = {}
    for row in opened.storage.sql("SELECT subscription, path, link FROM links"):
        links.setdefault(row["subscription"], {})[row["path"]] = msgspec.json.decode(row["link"], type=Link)
    subscriptions = {}
    for row in opened.storage.sql("SELECT id, head, root_url FROM subscriptions"):
        state = msgspec.json.decode(row["head"], type=SubscriptionState)
        state.links = links.pop(row["id"], {})
        subscriptions[row["id"]] = told(state, row["root_url"])
    assert not links, f"links of subscriptions that are gone: {sorted(links)}"
    return SubscriptionsState(subscriptions, opened.storage.list(limit=1_000_000))


def told(state: SubscriptionState, root_url: str) -> dict[str, Any]:
    """A subscription as plain data."""
    return {**msgspec.to_builtins(state), "root_url": root_url}
