"""The keys that webhooks are signed with: one in use, and the public halves of those before it."""

from __future__ import annotations

import secrets

import msgspec

from ..storage.object_storage import Storage
from ..wire.webhooks import SEED_BYTES, Jwk, WebhookKey, jwks_document

SEED = "signing-seed"
OLD_KEYS = "old-keys"


class WebhookKeys:
    """Keeps the keys among an object's values. The first one is made when it is first asked for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._key: WebhookKey | None = None

    @property
    def current(self) -> WebhookKey:
        """The key to sign with."""
        if self._key is None:
            seed = self._storage.get(SEED)
            if not isinstance(seed, bytes):
                seed = secrets.token_bytes(SEED_BYTES)
                self._storage.put(SEED, seed)
            self._key = WebhookKey(seed)
        return self._key

    def rotate(self) -> WebhookKey:
        """Take a new key. The public half of the old one stays in the key set."""
        old = [self.current.jwk, *self._old()]
        self._storage.put(OLD_KEYS, msgspec.to_builtins(old))
        self._storage.put(SEED, secrets.token_bytes(SEED_BYTES))
        self._key = None
        return self.current

    def document(self) -> bytes:
        """The key set as it is published, the current key first."""
        return jwks_document([self.current.jwk, *self._old()])

    def _old(self) -> list[Jwk]:
        return msgspec.convert(self._storage.get(OLD_KEYS) or [], list[Jwk])
