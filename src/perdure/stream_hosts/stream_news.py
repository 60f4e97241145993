"""What became of streams, and how subscriptions are told.

Whoever asks for the tails of streams has to wait, and streams go on meanwhile. So each such
search is a `Survey` that notes the news that come during it: what is older is in the tails, what
is newer in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import msgspec

from ..streams.subscription import Subscription
from ..streams.subscription_state import Effect, Link
from ..values import format_offset
from ..wire.subscriptions import BEFORE_FIRST_OFFSET, is_after, later_offset
from .stream_tails import Tail

START = format_offset(0)
"""Where streams begin."""

NOT_KNOWN = Tail(BEFORE_FIRST_OFFSET, "")


class News(msgspec.Struct, frozen=True):
    """What became of a stream since it was told of last.

    ``tail`` is where it ends now, None when it is gone. ``before`` is where it began, if it was made
    since; None: it was there already. ``removed``: one of that name was there, and went away. ``stream``
    says which of that name it is; empty where there is none.
    """

    tail: str | None
    before: str | None = None
    removed: bool = False
    stream: str = ""

    def then(self, later: News) -> News:
        """This and what came after it, in one."""
        if later.tail is None:
            return later
        if later.before is not None or self.tail is None:
            return News(later.tail, later.before, removed=True, stream=later.stream)
        return News(later_offset(self.tail, later.tail), self.before, self.removed, later.stream)


class Survey:
    """A search for streams, and what became of them meanwhile. ``wants`` says whose news matters to it."""

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self.wants = wants
        self.news: dict[str, News] = {}

    def note(self, news: Mapping[str, News]) -> None:
        """Some news came during the search."""
        for path, item in news.items():
            known = self.news.get(path)
            self.news[path] = item if known is None else known.then(item)


class Known:
    """A subscription, and what it knew of streams (those of ``paths``, or all) before they were looked at."""

    def __init__(self, id: str, subscription: Subscription, paths: Set[str] | None) -> None:
        self.id = id
        self.subscription = subscription
        links = subscription.state.links
        self.tails = {
            path: Tail(link.tail, link.stream) for path, link in links.items() if paths is None or path in paths
        }

    def missed(self, tails: Mapping[str, Tail], survey: Survey) -> dict[str, News]:
        """What it did not hear of streams that were found to end there."""
        found = ((path, self._missed(path, tail, survey)) for path, tail in tails.items())
        return {path: item for path, item in found if item is not None}

    def _missed(self, path: str, found: Tail, survey: Survey) -> News | None:
        told, tail = survey.news.get(path), found.offset
        if told is not None:
            if told.tail is None or told.removed or told.before is not None:
                return None  # it was told all of it since
            tail = later_offset(told.tail, tail)
        known = self.tails.get(path, NOT_KNOWN)
        # A stream that ends earlier than it did is another one of that name, too.
        anew = known.offset == BEFORE_FIRST_OFFSET or is_after(known.offset, tail)
        anew = anew or known.stream not in ("", found.stream)
        return News(tail, START if anew else None, stream=found.stream)

    def gone(self, found: set[str], survey: Survey) -> list[str]:
        """What it watched and is not among all that was ``found``."""
        return [path for path in self.tails if path not in found and path not in survey.news]


def tell(subscription: Subscription, news: Mapping[str, News], now_ms: int) -> list[Effect]:
    """Tell a subscription what became of streams, as far as it watches them; what it asks for in turn."""
    effects: list[Effect] = []
    for path, item in news.items():
        if not subscription.watches(path):
            continue
        link = subscription.state.links.get(path)
        if item.removed or (item.before is not None and link is not None and _is_to_another(link, item)):
            effects += subscription.stream_deleted(path)
        if item.tail is None:
            continue
        if item.tail == item.before:
            effects += subscription.stream_appeared(path, item.tail)
        else:
            before = item.before or BEFORE_FIRST_OFFSET
            effects += subscription.stream_appended(path, item.tail, now_ms, before=before)
        subscription.stream_is(path, item.stream)
    return effects


def _is_to_another(link: Link, made: News) -> bool:
    """Whether the link is to an earlier stream of that name: one that expires leaves without news."""
    return link.acked != BEFORE_FIRST_OFFSET or is_after(link.tail, made.tail or BEFORE_FIRST_OFFSET)
