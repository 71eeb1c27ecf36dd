"""Server settings: from VISAVIS_* variables and from flags, checked once, then frozen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_REPOSITORY = Path(__file__).resolve().parents[1]


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "visavis"


class ServerConfig(BaseSettings):
    """All settings of `visavis serve`. Raises pydantic.ValidationError that names the field."""

    model_config = SettingsConfigDict(env_prefix="VISAVIS_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    metrics_port: int | None = Field(None, ge=0, le=65535)
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    model: str = "embedded"
    weights: Path | None = None
    device: str = "cpu"
    num_threads: int | None = Field(None, ge=1)
    num_steps: int | None = Field(None, ge=1, le=50)

    data_dir: Path = Field(default_factory=_default_data_dir)
    web_dir: Path = _REPOSITORY / "clients" / "web" / "dist"
    gallery_dir: Path | None = None
    allowed_origins: tuple[str, ...] = ()

    max_sessions: int | None = Field(None, ge=1)
    max_message_bytes: int = Field(1 << 20, ge=1024)
    max_image_bytes: int = Field(10 << 20, ge=1024)
    max_buffered_input_ms: int = Field(30_000, ge=100)
    max_inflight_ms: int = Field(1_500, ge=100)
    max_session_s: float = Field(3_600.0, gt=0)
    idle_timeout_s: float = Field(600.0, gt=0)
    handshake_timeout_s: float = Field(10.0, gt=0)
    slow_client_s: float = Field(10.0, gt=0)
    drain_timeout_s: float = Field(30.0, ge=0)

    speech_lead_ms: int = Field(1_120, ge=40)
    idle_lead_ms: int = Field(240, ge=40, le=300)
    idle_chunk_frames: Literal[9, 17, 33] = 9
    stats_every_s: float = Field(2.0, gt=0)

    @field_validator("gallery_dir", "weights", "data_dir", "web_dir")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @property
    def gallery(self) -> Path:
        """Where the built-in avatars are: the built web page's folder, else its source folder."""
        if self.gallery_dir is not None:
            return self.gallery_dir
        built = self.web_dir / "avatars"
        return built if built.is_dir() else self.web_dir.parent / "public" / "avatars"
