"""Why an object must wake with the server: the kinds of work that a crash would leave unfinished."""

from __future__ import annotations

from ..objects.object import Context

_META = "agent_holds"


class Holds:
    """The reasons for which one object is held awake; written when the set of them changes.

    They are the engine's own values, not rows of a table, so that an instance finds out with one look-up
    whether its predecessor left work.
    """

    __slots__ = ("_context", "_known")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: set[str] | None = None

    @property
    def _reasons(self) -> set[str]:
        """Those that hold; at first what held the last instance, and was not ended."""
        if self._known is None:
            stored = self._context.storage.read_meta(_META)
            self._known = set(stored.split(",")) if stored else set()
        return self._known

    def __contains__(self, reason: str) -> bool:
        return reason in self._reasons

    def set(self, reason: str, held: bool) -> None:
        """Begin or end to be held for this reason."""
        reasons = self._reasons
        if (reason in reasons) == held:
            return
        if held:
            reasons.add(reason)
        else:
            reasons.discard(reason)
        self._context.storage.write_meta(_META, ",".join(sorted(reasons)) or None)
        self._context.hold_awake(bool(reasons))
