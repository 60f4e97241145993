"""Every error that perdure raises.

The tree (retryable errors carry ``retryable = True``; final ones do not)::

    PerdureError
    ├── WireError                  bytes on a wire that break their protocol
    │   ├── LocalProtocolError     this program tried to send them
    │   └── RemoteProtocolError    the peer sent them
    ├── LimitExceeded              a named limit; 413
    ├── UnsupportedFile            a file of a type that the room does not take; 415
    ├── NoSuchFile                 the room has no file at this address; 404
    ├── TooManyRequests            a named rate or number; 429, retryable after a while
    ├── StorageError               the object's storage failed; nothing unsaved was shown
    │   ├── StorageFull            no room on the disk or in the journal; retryable
    │   ├── SyncFailed             the disk refused a sync
    │   ├── CorruptionError        a stored record does not decode
    │   ├── FormatError            written by a newer perdure
    │   ├── DataFolderLocked       another process has the data folder open
    │   └── ForbiddenSQL           a statement that an object may not run
    ├── FencedError                an older owner tried to write
    ├── OffsetError                an offset that this stream never gave out
    │   └── OffsetTrimmed          what was there is not kept any more; 410
    ├── StreamNotFound
    ├── StreamGone                 deleted, but its forks still read it; 410
    ├── StreamClosed               an append after the end
    ├── StreamConflict             the path is taken by a stream unlike the one asked for
    ├── ContentTypeConflict        not the stream's content type
    ├── SequenceConflict           a Stream-Seq that does not rise
    ├── ObjectError
    │   ├── InvalidName            a class or object name that cannot be used
    │   ├── ClassNotFound
    │   ├── MethodNotFound         no such method, or not marked ``@callable``
    │   ├── BadArguments           arguments do not fit the method's annotations
    │   ├── Overloaded             a bounded queue is full; retryable after a while
    │   └── ObjectReset            the instance was discarded under the caller; retryable
    ├── Unauthenticated            401
    ├── Forbidden                  403
    ├── ModelError                 the language model failed
    │   ├── ModelOverloaded        retryable
    │   └── ModelTimeout           retryable
    ├── ToolError                  a tool failed; its text is for the model
    │   └── ToolInterrupted        a crash cut it off; whether it had its effect is not known
    ├── Busy                       the room answers already, and drops what comes meanwhile; 409, retryable
    └── ConfigError                a setting that cannot work; says what to do

``code`` is the stable name that clients see, ``status`` the HTTP status that a surface
answers with. Programmer errors are ``TypeError``, ``ValueError`` or ``assert``.
"""

from __future__ import annotations


class PerdureError(Exception):
    """Base of all errors of this package."""

    code: str = "error"
    status: int = 500
    retryable: bool = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])

    def as_json(self) -> dict[str, object]:
        """The one error shape of every surface: ``{"error": {"code", "message", "retryable"}}``."""
        return {"error": {"code": self.code, "message": str(self), "retryable": self.retryable}}


class WireError(PerdureError):
    """Bytes on a wire that break their protocol."""

    code = "protocol_error"
    status = 400


class LocalProtocolError(WireError):
    """This program tried to send something that the protocol forbids."""

    code = "local_protocol_error"
    status = 500


class RemoteProtocolError(WireError):
    """The peer sent something that the protocol forbids."""

    code = "bad_request"


class LimitExceeded(PerdureError):
    """Something is larger than a named limit allows.

    ``limit`` is the limit's name, ``value`` what was presented, ``maximum`` what is allowed.
    """

    code = "limit_exceeded"
    status = 413

    def __init__(self, limit: str, value: int, maximum: int) -> None:
        self.limit, self.value, self.maximum = limit, value, maximum
        super().__init__(f"{limit} allows {maximum:,} at most, this has {value:,}")


class UnsupportedFile(PerdureError):
    """The room takes no files of this type."""

    code = "unsupported_file"
    status = 415


class NoSuchFile(PerdureError):
    """The room has no file at this address."""

    code = "file_not_found"
    status = 404


class TooManyRequests(PerdureError):
    """A named rate or number was passed; try again after a while."""

    code = "too_many_requests"
    status = 429
    retryable = True


class StorageError(PerdureError):
    """The object's storage failed; nothing that was not saved has been shown to anyone."""

    code = "storage_error"
    status = 503


class StorageFull(StorageError):
    """There is no room left on the disk or in the journal."""

    code = "storage_full"
    status = 507
    retryable = True


class SyncFailed(StorageError):
    """The disk refused to make a write durable."""

    code = "sync_failed"
    retryable = True


class CorruptionError(StorageError):
    """A stored record does not decode; nothing was changed and every file is kept."""

    code = "corruption"

    def __init__(self, what: str, where: str) -> None:
        self.what, self.where = what, where
        super().__init__(
            f"{where}: {what}. Nothing was changed; every file is kept. "
            f"Copy the data folder, then see `perdure repair --help`."
        )


class FormatError(StorageError):
    """The data was written by a newer version of perdure."""

    code = "format_too_new"


class DataFolderLocked(StorageError):
    """Another process has the data folder open."""

    code = "data_folder_locked"


class ForbiddenSQL(StorageError):
    """A statement that an object may not run."""

    code = "forbidden_sql"
    status = 400


class FencedError(PerdureError):
    """A write by an owner that has been replaced. ``held`` is the newest epoch, ``presented`` the writer's."""

    code = "fenced"
    status = 409

    def __init__(self, held: int, presented: int) -> None:
        self.held, self.presented = held, presented
        super().__init__(f"epoch {presented} was replaced by epoch {held}")


class OffsetError(PerdureError):
    """An offset that this stream never gave out."""

    code = "bad_offset"
    status = 400


class OffsetTrimmed(OffsetError):
    """What was at this offset is not kept any more."""

    code = "offset_trimmed"
    status = 410


class StreamGone(PerdureError):
    """The stream was deleted; only its forks still read it."""

    code = "stream_gone"
    status = 410


class StreamNotFound(PerdureError):
    """There is no such stream."""

    code = "stream_not_found"
    status = 404


class StreamClosed(PerdureError):
    """The stream has ended; nothing can be appended."""

    code = "stream_closed"
    status = 409


class StreamConflict(PerdureError):
    """The path is taken by a stream that is unlike the one asked for."""

    code = "stream_conflict"
    status = 409


class ContentTypeConflict(PerdureError):
    """The content type is not the stream's."""

    code = "content_type_conflict"
    status = 409


class SequenceConflict(PerdureError):
    """The Stream-Seq is not greater than the newest one."""

    code = "sequence_conflict"
    status = 409


class ObjectError(PerdureError):
    """A call to an object could not be carried out."""

    code = "object_error"


class InvalidName(ObjectError):
    """A class or object name that cannot be used."""

    code = "invalid_name"
    status = 400


class ClassNotFound(ObjectError):
    """No class of that name is registered with the app."""

    code = "class_not_found"
    status = 404


class MethodNotFound(ObjectError):
    """The object has no callable method of that name."""

    code = "method_not_found"
    status = 404


class BadArguments(ObjectError):
    """The arguments do not fit the method's annotations."""

    code = "bad_arguments"
    status = 422


class Overloaded(ObjectError):
    """A bounded queue of the object is full; try again after a while."""

    code = "overloaded"
    status = 503
    retryable = True


class ObjectReset(ObjectError):
    """The object's instance was discarded while it worked on the call."""

    code = "object_reset"
    status = 503
    retryable = True


class Unauthenticated(PerdureError):
    """The request carries no valid credentials."""

    code = "unauthenticated"
    status = 401


class Forbidden(PerdureError):
    """The user may not do this."""

    code = "forbidden"
    status = 403


class ModelError(PerdureError):
    """The language model failed."""

    code = "model_error"
    status = 502


class ModelOverloaded(ModelError):
    """The language model's provider is overloaded."""

    code = "model_overloaded"
    status = 503
    retryable = True


class ModelTimeout(ModelError):
    """The language model did not answer in time."""

    code = "model_timeout"
    status = 504
    retryable = True


class ToolError(PerdureError):
    """A tool failed. Raise it in a tool to say why to the model, in your own words."""

    code = "tool_error"


class ToolInterrupted(ToolError):
    """The tool was cut off by a restart of the server; whether it took effect is not known."""

    code = "tool_interrupted"


class Busy(PerdureError):
    """The room is answering; say it again when it has."""

    code = "busy"
    status = 409
    retryable = True


class ConfigError(PerdureError):
    """A setting that cannot work."""

    code = "config_error"
