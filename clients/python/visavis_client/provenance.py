"""What a recording says of itself: that it is synthetic, what made it, when. As the server's do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

# IPTC's term for media that a trained model made, which C2PA uses, too.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAME = "visavis-client"


def provenance_tags(
    *, created: datetime, model: str | None = None, consent: bool | None = None
) -> dict[str, str]:
    """Tags of an MP4 file; `comment` holds all of it as JSON, without what is None.

    created: with a time zone. consent: what the uploader of the portrait said.
    """
    software = _software()
    when = created.astimezone(UTC).isoformat(timespec="seconds")
    facts = {
        "synthetic": True,
        "digitalSourceType": SOURCE_TYPE,
        "software": software,
        "model": model,
        "created": when,
        "consent": consent,
    }
    made_by = software if model is None else f"{software} with the model {model}"
    return {
        "title": "Synthetic talking portrait",
        "description": f"Synthetic media made by {made_by}.",
        "comment": json.dumps({k: v for k, v in facts.items() if v is not None}),
        "creation_time": when,
    }


def _software() -> str:
    try:
        return f"{NAME} {version(NAME)}"
    except PackageNotFoundError:
        # Copied into another program instead of installed.
        return NAME
