"""Sizes are checked when they are written down, and the presets are what they claim."""

import dataclasses

import pytest
import torch

from visavis.engine.dit.config import DIT_PRESETS, ConfigError, DiTConfig
from visavis.engine.dit.model import FlashTalkDiT


def test_released_preset_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        model = FlashTalkDiT(DIT_PRESETS["flashtalk-14b"])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == pytest.approx(18.88e9, rel=1e-3)


def test_embedded_preset_has_no_text_branch() -> None:
    model = FlashTalkDiT(DIT_PRESETS["embedded"])
    assert model.text_embedding is None
    assert not any("text" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 65),
        ("num_layers", 0),
        ("patch_size", (2, 2, 2)),
        ("patch_size", (1, 2)),
        ("freq_dim", 7),
        ("cond_channels", 3),
        ("audio_window", 4),
        ("temporal_stride", 1),
        ("text_len", 0),
        ("image_dim", 0),
        ("eps", 0.0),
        ("text_dim", -1),
    ],
)
def test_impossible_size_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(DIT_PRESETS["test"], **{field: value})


def test_model_without_any_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match="text, an image or both"):
        dataclasses.replace(DIT_PRESETS["embedded"], image_tokens=0, image_dim=0)


def test_original_switch_that_is_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="qk_norm"):
        DiTConfig.from_original({"qk_norm": False})
