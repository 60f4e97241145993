"""The limits of the object runtime: each with its unit and its default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one process. Past one, the caller gets a named error and nobody else notices."""

    inbox_events_max: int = 1_000
    """Events of one object that wait or run; the next caller gets `Overloaded`."""

    message_bytes_max: int = 1024 * 1024
    """Largest message from a client, in bytes."""

    chat_frame_bytes_max: int = 32 * 1024 * 1024
    """Largest frame of a client at ``/agents/``, in bytes: chats send all of their messages with each request."""

    message_parts_max: int = 200
    """Parts of one message from a client."""

    message_extra_bytes_max: int = 1024 * 1024
    """Bytes of a client's message, as JSON, that are neither its texts nor the content of its files."""

    files_per_message_max: int = 20
    """Files in one message."""

    file_bytes_max: int = 25 * 1024 * 1024
    """Largest file of a room, in bytes."""

    inline_file_bytes_max: int = 8 * 1024
    """A data URL longer than this, in characters, becomes a file of its room; a shorter one stays in its message."""

    room_files_max: int = 10_000
    """Files of one room."""

    room_files_bytes_max: int = 1024 * 1024 * 1024
    """Bytes of the files of one room, together."""

    connection_buffer_bytes_max: int = 4 * 1024 * 1024
    """Bytes that wait for one slow client; past it the connection is closed (it resumes by offset)."""

    connections_per_object_max: int = 10_000
    """Live connections of one object."""

    attachment_bytes_max: int = 16 * 1024
    """Size of a connection's attachment, as JSON."""

    awake_objects_max: int = 4_000
    """Instances in memory; past it the longest idle ones hibernate at once."""

    hibernate_after_ms: int = 10_000
    """Idle time after which an instance hibernates."""

    block_concurrency_ms_max: int = 30_000
    """Longest `block_concurrency` section; past it the instance is discarded."""

    alarm_ms_max: int = 15 * 60 * 1000
    """Longest run of an alarm's handler."""

    loop_block_ms_max: int = 1_000
    """A handler that blocks the loop this long is reported with its stack."""

    journal_bytes_max: int = 256 * 1024 * 1024
    """Live bytes of the journal; from half of it on checkpoints shrink it. Bounds the time of a recovery."""

    drain_ms_max: int = 5_000
    """Time that running work gets at a shutdown before it is parked."""
