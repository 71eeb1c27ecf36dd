"""A follower that a leader has started reads what it needs of the settings, and no more."""

from __future__ import annotations

import os

import pytest

from visavis.server.config import ServerConfig
from visavis.server.group import FOLLOWERS_SETTINGS, forget_settings


def test_settings_that_need_the_leaders_secrets_do_not_stop_a_follower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The leader has taken keys and secrets out of the environment that its children get."""
    monkeypatch.setenv("VISAVIS_HOST", "0.0.0.0")
    monkeypatch.setenv("visavis_handover_dir", "/shared")
    monkeypatch.setenv("VISAVIS_DEVICE", "cuda")
    monkeypatch.setenv("VISAVIS_LOG_FORMAT", "json")
    monkeypatch.setenv("VISAVIS_GROUP", "of the leader")
    with pytest.raises(ValueError, match="no API key is set"):
        ServerConfig()
    forget_settings()
    config = ServerConfig()
    assert (config.device, config.log_format) == ("cuda", "json")
    assert config.handover_dir is None
    assert os.environ["VISAVIS_GROUP"] == "of the leader"


def test_what_a_follower_needs_are_settings() -> None:
    assert set(FOLLOWERS_SETTINGS) <= set(ServerConfig.model_fields)
