"""Metrics on codes: perfect motion scores perfectly, known faults show in the right number."""

import numpy as np
import pytest
import torch

from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.training.motion_metrics import (
    FaceProbe,
    boundary_jump,
    head_acceleration,
    motion_metrics,
    slot_jump_ratio,
)
from visavis.training.puppets.basis import WEIGHTS

JAW, BLINK, YAW = (WEIGHTS.index(name) for name in ("jaw", "blink_l", "yaw"))
BORDERS = np.array([28, 56])


def basis() -> torch.Tensor:
    result = torch.zeros(2, len(WEIGHTS), 6, 16, 16)
    result[:, JAW, 5, 10:12, 6:10] = 3.0
    result[:, BLINK, 3, 6, 4:6] = 2.0
    result[:, YAW, 0] = 1.0
    return result


def motion(jaw: torch.Tensor, blink: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    b = basis()
    return sum(
        weight[:, :, None, None, None] * b[:, None, i]
        for weight, i in ((jaw, JAW), (blink, BLINK), (yaw, YAW))
    )  # type: ignore[return-value]


def curves(seed: int) -> list[torch.Tensor]:
    return list(torch.rand(3, 2, 84, generator=torch.Generator().manual_seed(seed)))


def metrics(sampled: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    return motion_metrics(sampled, truth, FaceProbe.from_basis(basis()), BORDERS)


def test_probe_reads_the_controls_back() -> None:
    jaw, blink, yaw = curves(0)
    probe = FaceProbe.from_basis(basis())
    codes = motion(jaw, blink, yaw)
    torch.testing.assert_close(probe.opening(codes), jaw)
    torch.testing.assert_close(probe.blink(codes), blink)


def test_the_truth_scores_perfectly() -> None:
    codes = motion(*curves(0))
    result = metrics(codes, codes)
    result.pop("boundary_jump")  # of the motion itself, whatever they are
    result.pop("slot_jump")
    assert result.pop("opening_error") == pytest.approx(0.0, abs=1e-5)
    assert all(value == pytest.approx(1.0, abs=1e-4) for value in result.values())


def test_half_the_opening_keeps_r_and_quarters_the_variance() -> None:
    jaw, blink, yaw = curves(0)
    result = metrics(motion(jaw / 2, blink, yaw), motion(jaw, blink, yaw))
    assert result["opening_r"] == pytest.approx(1.0, abs=1e-4)
    assert result["opening_dynamics"] == pytest.approx(0.25, abs=1e-3)
    assert result["blink_dynamics"] == pytest.approx(1.0, abs=1e-3)


def test_unrelated_openings_do_not_correlate() -> None:
    result = metrics(motion(*curves(0)), motion(*curves(1)))
    assert abs(result["opening_r"]) < 0.3


def test_a_jump_at_the_borders_shows() -> None:
    codes = torch.cumsum(torch.full((1, 84, 6, 16, 16), 0.01), dim=1)
    codes[:, 28:] += 0.04
    codes[:, 56:] += 0.04
    assert boundary_jump(codes, BORDERS) == pytest.approx(5.0, rel=1e-3)


def sway(steps: list[float]) -> torch.Tensor:
    """A head [1, N, 6, 16, 16] that moves sideways by the steps, in code units."""
    codes = torch.zeros(1, len(steps) + 1, 6, 16, 16)
    codes[0, 1:, 0] = torch.tensor(steps).cumsum(0)[:, None, None]
    return codes


def test_a_judder_at_every_latent_shows_and_at_no_other_place() -> None:
    # Frames 4, 8, 12 begin a latent; a chunk's own first frame, 14, is not counted.
    steps = [1.0] * 19
    for frame in (4, 8, 12, 18):
        steps[frame - 1] = 2.5
    steps[14 - 1] = 9.0
    assert slot_jump_ratio(sway(steps), np.array([14])) == pytest.approx(2.5)
    assert slot_jump_ratio(sway([1.0] * 19), np.array([14])) == pytest.approx(1.0)
    shifted = [1.0] * 19
    shifted[5] = 2.5
    assert slot_jump_ratio(sway(shifted), np.array([14])) == pytest.approx(1.0)


def test_acceleration_is_in_pixels_of_the_picture() -> None:
    steady, shaken = sway([0.5] * 8), sway([0.5, -0.5] * 4)
    assert float(head_acceleration(steady)) == pytest.approx(0.0, abs=1e-5)
    # Only one of the head's two channels moves, by one unit each way.
    assert float(head_acceleration(shaken)) == pytest.approx(CODE_SCALE[0] / 2**0.5)
