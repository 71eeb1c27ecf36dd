"""Metrics on codes: perfect motion scores perfectly, known faults show in the right number."""

import numpy as np
import pytest
import torch

from visavis.training.motion_metrics import FaceProbe, boundary_jump, motion_metrics
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
    result.pop("boundary_jump")  # of the motion itself, whatever it is
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
