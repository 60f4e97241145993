"""What a provider wants back with the next request, in a part's ``providerMetadata``.

::

    {"pydantic_ai": {"id": "rs_1", "signature": "…", "provider_name": "openai", "provider_details": {…}}}

The key and the names are those of pydantic-ai's own adapter for the AI SDK, so a conversation that was kept by it
can be gone on with here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

KEY = "pydantic_ai"

FIELDS = ("id", "signature", "provider_name", "provider_details")


def metadata_of(part: object, canonical_system: str | None = None) -> dict[str, dict[str, Any]] | None:
    """The metadata of a part of a response; None where there is nothing to give back."""
    found = {name: value for name in FIELDS if (value := getattr(part, name, None)) is not None}
    if found.keys() <= {"provider_name"}:
        return None  # a provider's name alone is worth nothing
    if canonical_system is not None:
        found["canonical_system"] = canonical_system
    return {KEY: plain_json(found)}


def fields_of(part: Mapping[str, Any], name: str = "providerMetadata") -> dict[str, Any]:
    """The arguments for pydantic-ai's part that `metadata_of` kept in a message's part."""
    kept = (part.get(name) or {}).get(KEY) if isinstance(part.get(name), dict) else None
    if not isinstance(kept, dict) or not isinstance(kept.get("provider_name"), str):
        return {}
    fields = {name: kept[name] for name in ("id", "signature", "provider_name") if isinstance(kept.get(name), str)}
    if isinstance(kept.get("provider_details"), dict):
        fields["provider_details"] = kept["provider_details"]
    return fields


def canonical_system_of(part: Mapping[str, Any], name: str = "providerMetadata") -> str | None:
    """Whose keys verify the part's signature, where the provider's name does not say it."""
    kept = (part.get(name) or {}).get(KEY) if isinstance(part.get(name), dict) else None
    system = kept.get("canonical_system") if isinstance(kept, dict) else None
    return system if isinstance(system, str) else None


def plain_json(value: object) -> Any:
    """``value`` as plain JSON: models of pydantic, dataclasses, dates and the like as their JSON."""
    return json.loads(to_json(value, fallback=str))
