"""What `visavis bench quantize` says of the errors it saw."""

import pytest

from visavis.engine.quantize import QuantizationError
from visavis.engine.schematic import schematic_portrait
from visavis.server.bench_quantize import measure_quality, psnr_db, summary


def test_psnr_of_equal_pictures_is_bounded() -> None:
    assert psnr_db(0.0) == 99.0
    assert psnr_db(255.0**2) == 0.0


def test_drift_shows_between_the_first_and_the_last_tenth() -> None:
    errors = [(0.01 * 10 ** (i // 10), 0.1) for i in range(20)]
    found = summary("int8", errors, 2_000_000)
    assert found.first_psnr_db - found.last_psnr_db == pytest.approx(10.0)
    assert found.worst_psnr_db == pytest.approx(found.last_psnr_db)
    assert (found.chunks, found.weight_megabytes) == (20, 2.0)
    assert found.levels == pytest.approx(0.1)


def test_bad_requests_are_refused_before_the_work() -> None:
    portrait = schematic_portrait()
    with pytest.raises(ValueError, match="chunks=0: must be at least 1"):
        measure_quality("test", None, "cpu", portrait, 0, ["int8"])
    with pytest.raises(QuantizationError, match="'int3' is unknown"):
        measure_quality("test", None, "cpu", portrait, 1, ["int3"])
