"""What pictures cost is measured with the encoders that sessions get."""

from __future__ import annotations

from visavis.server.picture_costs import MEASURED_FORMATS, measure_pictures


def test_every_format_and_size_is_measured_and_larger_ones_cost_more() -> None:
    sizes = ((128, 128), (256, 256))
    costs = measure_pictures((128, 128), sizes, 512)
    for video in MEASURED_FORMATS:
        seconds = list(costs.seconds[video].values())
        assert list(costs.seconds[video]) == [*sizes, (512, 512)]
        assert 0 < seconds[0] < seconds[2]
        # Sixteen times the pixels, and what every picture costs whatever its size.
        assert seconds[2] > 2 * seconds[0]
    assert costs.usual_s == costs.seconds["h264"][(128, 128)]
    assert costs.frame_s("fmp4", (512, 512), 12.5) == costs.seconds["h264"][(512, 512)] / 2
    assert costs.frame_s("none", (512, 512), 25) == 0.0


def test_a_model_that_makes_the_largest_size_has_no_other() -> None:
    costs = measure_pictures((96, 160), ((96, 160),), 128)
    assert [list(by_size) for by_size in costs.seconds.values()] == [[(96, 160)]] * 2
