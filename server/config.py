"""Server settings: from VISAVIS_* variables and from flags, checked once, then frozen."""

from __future__ import annotations

import ipaddress
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from visavis.engine.weight_memory import Precision, VaeFormat, WeightMemory
from visavis.server.api_keys import ApiKey, KeyRing, parse_keys, read_keys
from visavis.server.events import Degradation
from visavis.server.quality import DegradePolicy

_REPOSITORY = Path(__file__).resolve().parents[1]


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "visavis"


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServerConfig(BaseSettings):
    """All settings of `visavis serve`. Raises pydantic.ValidationError that names the field."""

    # An error that quotes its input would print a key.
    model_config = SettingsConfigDict(
        env_prefix="VISAVIS_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: int | None = Field(None, ge=0, le=65535)
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    model: str = "embedded"
    weights: Path | None = None
    device: str = "cpu"
    num_threads: int | None = Field(None, ge=1)
    num_steps: int | None = Field(None, ge=1, le=50)
    ulysses_degree: int | None = Field(None, ge=1)
    ring_degree: int | None = Field(None, ge=1)
    processes: int = Field(1, ge=1)
    heartbeat_timeout_s: float = Field(10.0, gt=0)
    step_timeout_s: float | None = Field(None, gt=0)
    group_start_timeout_s: float = Field(900.0, gt=0)
    group_max_restarts: int = Field(5, ge=0)
    compiled: bool = False
    recorded: bool = False
    quantize: Precision | None = None
    offload: int = 0
    vae_dtype: VaeFormat | None = None

    data_dir: Path = Field(default_factory=_default_data_dir)
    web_dir: Path = _REPOSITORY / "clients" / "web" / "dist"
    gallery_dir: Path | None = None

    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    api_keys_file: Path | None = None
    token_secrets: SecretStr = SecretStr("")
    token_ttl_s: int = Field(60, ge=5, le=3600)
    no_auth: bool = False
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    require_consent: bool = False
    watermark: str = Field("", max_length=60)
    max_upload_bytes: int = Field(100 << 20, ge=1024)
    max_videos: int = Field(32, ge=1)
    max_video_s: float = Field(1_800.0, gt=0)
    image_sandbox: bool = True
    otlp_traces: bool = False

    max_sessions: int | None = Field(None, ge=1)
    max_message_bytes: int = Field(1 << 20, ge=1024)
    max_image_bytes: int = Field(10 << 20, ge=1024)
    max_buffered_input_ms: int = Field(30_000, ge=100)
    max_inflight_ms: int = Field(1_500, ge=100)
    max_session_s: float = Field(3_600.0, gt=0)
    idle_timeout_s: float = Field(600.0, gt=0)
    handshake_timeout_s: float = Field(10.0, gt=0)
    # Sockets that were greeted and have not asked for a session yet.
    max_pending_sockets: int = Field(256, ge=1)
    slow_client_s: float = Field(10.0, gt=0)
    max_input_rate: float = Field(20.0, gt=1)
    # The longer side of pictures that clients may ask for; never less than the model's own.
    max_output_side: int = Field(512, ge=64, le=2048)
    resume_ttl_s: float = Field(30.0, ge=0)
    resume_secret: SecretStr | None = None
    replica_id: str | None = Field(None, max_length=128)
    # A folder that all replicas have mounted: sessions that one cannot keep go on on another.
    handover_dir: Path | None = None
    handover_max_bytes: int = Field(64 << 20, ge=1 << 16)
    drain_timeout_s: float = Field(30.0, ge=0)
    drain_notice_s: float = Field(0.0, ge=0)

    speech_lead_ms: int = Field(1_120, ge=40)
    idle_lead_ms: int = Field(240, ge=40, le=300)
    # Long idle chunks cost least, and are cut off when somebody speaks.
    idle_chunk_frames: Literal[9, 17, 33] = 33
    # What may be lowered when the engine falls behind, in that order, and how far.
    degrade: Annotated[tuple[Degradation, ...], NoDecode] = ("steps", "size", "fps")
    degrade_min_steps: int = Field(2, ge=1)
    degrade_min_scale: float = Field(0.5, gt=0, le=1)
    degrade_min_fps: float = Field(12.5, ge=1, le=25)
    max_queued_sessions: int = Field(16, ge=0)
    stats_every_s: float = Field(2.0, gt=0)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _hash_keys(cls, value: Any) -> Any:
        return parse_keys(value) if isinstance(value, str) else value

    @field_validator("degrade", mode="before")
    @classmethod
    def _split_degrade(cls, value: Any) -> Any:
        """`steps,size,fps` in any order, or `none`."""
        if not isinstance(value, str):
            return value
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        return () if names == ("none",) else names

    @field_validator("degrade")
    @classmethod
    def _check_degrade(cls, value: tuple[Degradation, ...]) -> tuple[Degradation, ...]:
        if len(set(value)) != len(value):
            raise ValueError("degrade names a lever twice; name each of steps, size, fps once")
        return value

    @property
    def degrade_policy(self) -> DegradePolicy:
        """What is lowered under load."""
        return DegradePolicy(
            order=self.degrade,
            min_steps=self.degrade_min_steps,
            min_scale=self.degrade_min_scale,
            min_fps=self.degrade_min_fps,
        )

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        """A JSON list, or origins with commas between."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return tuple(origin.strip() for origin in value.split(",") if origin.strip())

    @cached_property
    def memory(self) -> WeightMemory:
        """How the model's weights are held."""
        return WeightMemory(quantize=self.quantize, offload=self.offload, vae_dtype=self.vae_dtype)

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        self.memory.check(self.device, compiled=self.compiled, recorded=self.recorded)
        return self

    @model_validator(mode="after")
    def _check_exposure(self) -> Self:
        if not is_loopback(self.host) and not self.no_auth and not len(self.keys):
            raise ValueError(
                f"host={self.host} can be reached from other machines and no API key is set: "
                "set VISAVIS_API_KEYS_FILE or VISAVIS_API_KEYS (`visavis keys new NAME` makes a "
                "key), or say --no-auth to serve everybody"
            )
        if self.no_auth and len(self.keys):
            raise ValueError("no_auth contradicts the API keys that are set; remove one of them")
        return self

    @model_validator(mode="after")
    def _check_handover(self) -> Self:
        if self.handover_dir is None:
            return self
        if self.resume_secret is None or not self.resume_ttl_s:
            raise ValueError(
                "handover_dir is set, but sessions left there could not be taken up: set "
                "VISAVIS_RESUME_SECRET, the same for all replicas, and a VISAVIS_RESUME_TTL_S > 0"
            )
        return self

    @cached_property
    def keys(self) -> KeyRing:
        """All API keys, read once. Raises ApiKeyError."""
        listed = read_keys(self.api_keys_file) if self.api_keys_file is not None else ()
        return KeyRing((*self.api_keys, *listed))

    @property
    def signing_secrets(self) -> tuple[str, ...]:
        """What signs client secrets: the first of several, with commas between."""
        return tuple(s for s in self.token_secrets.get_secret_value().split(",") if s)

    @field_validator(
        "gallery_dir", "weights", "data_dir", "web_dir", "api_keys_file", "handover_dir"
    )
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
