"""The static files of the pages, read once and named by their content.

A page asks for ``/_perdure/static/chat.js?v=<hash>``: a new release is a new address, so browsers
may keep each file for ever and never run an old script against a new page.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files

STATIC_PATH = "/_perdure/static/"

_CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
SCRIPTS = (
    "chat.js",
    "composer.js",
    "connection.js",
    "files.js",
    "fold.js",
    "log.js",
    "markdown.js",
    "name.js",
    "outbox.js",
    "parts.js",
    "presence.js",
    "reader.js",
    "transcript.js",
    "words.js",
)
"""``chat.js`` imports the others by name alone: those are checked again on each load."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One static file. ``version`` is the hash of its bytes."""

    name: str
    body: bytes
    content_type: str
    version: str

    def headers(self, requested_version: str | None) -> dict[str, str]:
        """Kept for a year when asked for by the right version, else checked again each time."""
        cache = "public, max-age=31536000, immutable" if requested_version == self.version else "no-cache"
        return {
            "content-type": self.content_type,
            "cache-control": cache,
            "etag": f'"{self.version}"',
            "x-content-type-options": "nosniff",
        }


def _read_asset(name: str) -> Asset:
    body = (files("perdure.web") / "static" / name).read_bytes()
    version = blake2b(body, digest_size=8).hexdigest()
    return Asset(name, body, _CONTENT_TYPES[name.rpartition(".")[2]], version)


# Read now: later it would hold up the loop, and with it every room.
_ASSETS = {name: _read_asset(name) for name in (*SCRIPTS, "page.css", "mark.svg")}


def find_asset(name: str) -> Asset | None:
    """The file of that name, or None. Only listed names are looked for, never paths."""
    return _ASSETS.get(name)


def asset_url(name: str, base_path: str = "") -> str:
    """The address of a file that exists."""
    asset = find_asset(name)
    if asset is None:
        raise ValueError(f"no static file {name!r}")
    return f"{base_path}{STATIC_PATH}{name}?v={asset.version}"
