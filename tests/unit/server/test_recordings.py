"""What recordings show and say of themselves."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from visavis.server.provenance import Provenance
from visavis.server.watermark import Watermark


@pytest.mark.parametrize("size", [(256, 256), (448, 768), (64, 96)])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_the_mark_is_legible_in_the_corner_and_nowhere_else(
    size: tuple[int, int], shade: int
) -> None:
    frame = np.full((*size, 3), shade, np.uint8)
    marked = Watermark("AI", size).apply(frame)
    assert (frame == shade).all()
    changed = (marked != shade).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > size[0] * 0.5
    assert columns.min() > size[1] * 0.5
    corner = marked[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert int(corner.max()) - int(corner.min()) > 90


def test_a_text_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter text"):
        Watermark("a very long label indeed" * 3, (128, 128))


def test_the_origin_is_told_to_people_and_machines() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    tags = Provenance(model="embedded", consent=True, created=when).metadata()
    facts = json.loads(tags["comment"])
    assert facts["synthetic"] is True
    assert facts["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert (facts["model"], facts["consent"]) == ("embedded", True)
    assert facts["created"] == tags["creation_time"] == "2026-01-02T03:04:05+00:00"
    assert "Synthetic" in tags["description"]
    assert "consent" not in json.loads(Provenance(model="m").metadata()["comment"])
