"""What a recording says of itself: that it is synthetic, what made it, when. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

# IPTC's term for media that a trained model made, which C2PA uses, too.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The origin of one recording. consent: what the uploader of the portrait said, if anything."""

    model: str
    consent: bool | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def software(self) -> str:
        """Name and version of the program."""
        return f"visavis {version('visavis')}"

    def metadata(self) -> dict[str, str]:
        """Tags of an MP4 file; `comment` holds all of it as JSON."""
        created = self.created.astimezone(UTC).isoformat(timespec="seconds")
        facts = {
            "synthetic": True,
            "digitalSourceType": SOURCE_TYPE,
            "software": self.software,
            "model": self.model,
            "created": created,
            "consent": self.consent,
        }
        return {
            "title": "Synthetic talking portrait",
            "description": f"Synthetic media made by {self.software} with the model {self.model}.",
            "comment": json.dumps({k: v for k, v in facts.items() if v is not None}),
            "creation_time": created,
        }
