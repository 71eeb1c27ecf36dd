"""Sizes of the transformer, one dataclass per model and a literal table of presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

MASK_CHANNELS = 4  # the first frame's flag repeated four times, frames folded by four


class ConfigError(ValueError):
    """A size of the transformer that cannot work, with the field and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Sizes of a `FlashTalkDiT`; every field is checked on construction.

    Raises:
        ConfigError: a field is out of range; the message names it, its value and the remedy.
    """

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    patch_size: tuple[int, int, int] = (1, 2, 2)  # latent frames, rows, columns
    latent_channels: int
    cond_channels: int  # mask (4) + reference latents
    freq_dim: int = 256  # sinusoidal features of the timestep
    text_dim: int = 0
    text_len: int = 0  # 0: no text branch
    image_dim: int = 0
    image_tokens: int = 0  # 0: no image branch
    audio_layers: int
    audio_channels: int
    audio_window: int = 5  # pixel frames around each frame
    audio_hidden: int
    audio_dim: int  # channels of an audio token
    audio_tokens: int  # per latent frame
    temporal_stride: int = 4  # pixel frames in a latent frame
    # What the head computes: the velocity, or the clean latents, turned into a velocity outside. A
    # narrow model need not carry the noise through (arXiv 2511.13720).
    prediction: Literal["velocity", "clean"] = "velocity"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        optional = {"text_dim", "text_len", "image_dim", "image_tokens"}
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < (0 if name in optional else 1):
                limit = "0 or more" if name in optional else "at least 1"
                raise ConfigError(f"{name}={value}: must be {limit}")
        if len(self.patch_size) != 3 or min(self.patch_size) < 1:
            raise ConfigError(
                f"patch_size={self.patch_size}: needs three positive numbers: frames, rows, columns"
            )
        if self.patch_size[0] != 1:
            raise ConfigError(
                f"patch_size={self.patch_size}: the first must be 1, audio belongs to latent frames"
            )
        if self.dim % self.num_heads or self.head_dim % 2 or self.head_dim < 6:
            raise ConfigError(
                f"dim={self.dim} over num_heads={self.num_heads} gives no even head size of at "
                "least 6; choose dim = num_heads * 64 or * 128"
            )
        if self.freq_dim % 2:
            raise ConfigError(f"freq_dim={self.freq_dim}: half are cosines; use an even number")
        if self.cond_channels < MASK_CHANNELS:
            raise ConfigError(
                f"cond_channels={self.cond_channels}: holds the {MASK_CHANNELS} mask channels and "
                "the reference latents"
            )
        if self.audio_window % 2 == 0:
            raise ConfigError(
                f"audio_window={self.audio_window}: is centred on a frame; use an odd number"
            )
        if self.temporal_stride < 2:
            raise ConfigError(f"temporal_stride={self.temporal_stride}: must be at least 2")
        if self.eps <= 0:
            raise ConfigError(f"eps={self.eps}: must be positive")
        self._check_conditions()

    def _check_conditions(self) -> None:
        if (self.text_len > 0) != (self.text_dim > 0):
            raise ConfigError(
                f"text_len={self.text_len} with text_dim={self.text_dim}: set both or neither"
            )
        if (self.image_tokens > 0) != (self.image_dim > 0):
            raise ConfigError(
                f"image_tokens={self.image_tokens} with image_dim={self.image_dim}: "
                "set both or neither"
            )
        if not (self.has_text or self.has_image):
            raise ConfigError(
                "text_len=0 and image_tokens=0: give the model text, an image or both"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def in_channels(self) -> int:
        """Channels into the patch embedding: noise ‖ mask ‖ reference."""
        return self.latent_channels + self.cond_channels

    @property
    def has_text(self) -> bool:
        return self.text_len > 0

    @property
    def has_image(self) -> bool:
        return self.image_tokens > 0

    @property
    def later_window(self) -> int:
        """Audio features seen by each latent frame but the first: 8 for window 5, stride 4."""
        return self.audio_window + self.temporal_stride - 1

    def num_frames(self, latent_frames: int) -> int:
        """Pixel frames coded by `latent_frames` latent frames (1 + stride per further one)."""
        return 1 + self.temporal_stride * (latent_frames - 1)

    def frame_tokens(self, latent_size: tuple[int, int]) -> int:
        """Visual tokens of one latent frame of size (h, w)."""
        _, down, across = self.patch_size
        return (latent_size[0] // down) * (latent_size[1] // across)

    @classmethod
    def from_original(cls, config: Mapping[str, object]) -> DiTConfig:
        """Read the constructor arguments of the original's `WanModel` (its config.json).

        The image encoder (257 tokens of 1280) and wav2vec2 (12 layers of 768) are fixed there.

        Raises:
            ConfigError: a switch is set to something the released model does not use.
        """
        for switch in ("qk_norm", "cross_attn_norm", "norm_input_visual", "norm_output_audio"):
            if not config.get(switch, True):
                raise ConfigError(f"{switch}=False: only the released model's True is supported")
        if config.get("model_type", "i2v") != "i2v":
            raise ConfigError(f"model_type={config['model_type']!r}: only 'i2v' is supported")

        def size(name: str, default: int | None = None) -> int:
            value = config.get(name, default)
            if not isinstance(value, int):
                raise ConfigError(f"{name}={value!r}: the original's config must hold a number")
            return value

        patch = config.get("patch_size", (1, 2, 2))
        if not isinstance(patch, (list, tuple)) or len(patch) != 3:
            raise ConfigError(f"patch_size={patch!r}: needs three numbers")
        return cls(
            dim=size("dim"),
            ffn_dim=size("ffn_dim"),
            num_layers=size("num_layers"),
            num_heads=size("num_heads"),
            patch_size=(int(patch[0]), int(patch[1]), int(patch[2])),
            latent_channels=size("out_dim"),
            cond_channels=size("in_dim") - size("out_dim"),
            freq_dim=size("freq_dim", 256),
            text_dim=size("text_dim", 4096),
            text_len=size("text_len", 512),
            image_dim=1280,
            image_tokens=257,
            audio_layers=12,
            audio_channels=768,
            audio_window=size("audio_window", 5),
            audio_hidden=size("intermediate_dim", 512),
            audio_dim=size("output_dim", 768),
            audio_tokens=size("context_tokens", 32),
            temporal_stride=size("vae_scale", 4),
        )


DIT_PRESETS: dict[str, DiTConfig] = {
    # The released checkpoint: Wan2.1-I2V-14B with InfiniteTalk's audio branch, 18.88 B parameters.
    "flashtalk-14b": DiTConfig(
        dim=5120,
        ffn_dim=13824,
        num_layers=40,
        num_heads=40,
        latent_channels=16,
        cond_channels=20,
        text_dim=4096,
        text_len=512,
        image_dim=1280,
        image_tokens=257,
        audio_layers=12,
        audio_channels=768,
        audio_hidden=512,
        audio_dim=768,
        audio_tokens=32,
    ),
    # Two-layer motion latents on a 16x16 grid, layout maps as the reference, log-mel as the audio.
    "embedded": DiTConfig(
        dim=256,
        ffn_dim=768,
        num_layers=6,
        num_heads=4,
        patch_size=(1, 4, 4),
        latent_channels=24,
        cond_channels=20,
        image_dim=256,
        image_tokens=16,
        audio_layers=4,
        audio_channels=64,
        audio_hidden=192,
        audio_dim=192,
        audio_tokens=8,
        prediction="clean",
    ),
    # Random weights, every branch present: for shape and protocol tests.
    "test": DiTConfig(
        dim=64,
        ffn_dim=128,
        num_layers=2,
        num_heads=2,
        latent_channels=24,
        cond_channels=20,
        freq_dim=64,
        text_dim=16,
        text_len=8,
        image_dim=256,
        image_tokens=16,
        audio_layers=4,
        audio_channels=64,
        audio_hidden=32,
        audio_dim=32,
        audio_tokens=4,
    ),
}
