"""How a model's weights are held: as they are, in eight bits, or partly in host memory; and the
video VAE's number format.

Only words and numbers, without torch, so that settings can be refused before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

Precision = Literal["int8", "fp8", "int8-dynamic", "fp8-dynamic"]
"""`dynamic` rounds what comes in, too, and multiplies in eight bits: faster where there are units
for it. The others save memory alone and multiply in the dtype of what comes in."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
VaeFormat = Literal["float32", "bfloat16"]
VAE_FORMATS: tuple[VaeFormat, ...] = get_args(VaeFormat)


class QuantizationError(ValueError):
    """Weights that cannot be quantised as asked, and what to do instead."""


class OffloadError(ValueError):
    """Blocks that cannot be offloaded, and what to do instead."""


class VaeFormatError(ValueError):
    """A number format that a video VAE cannot have, and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightMemory:
    """`quantize`: eight-bit weights of the transformer's blocks, approximate. `offload`: so many of
    its last blocks wait in host memory and visit the device one ahead of their turn, exact.
    `vae_dtype`: what the video VAE's weights and pictures are computed in; None: as the
    transformer's, which is what the released code does.

    Raises:
        QuantizationError: an unknown precision. OffloadError: both, or fewer than no blocks.
        VaeFormatError: an unknown format.
    """

    quantize: Precision | None = None
    offload: int = 0
    vae_dtype: VaeFormat | None = None

    def __post_init__(self) -> None:
        if self.quantize is not None and self.quantize not in PRECISIONS:
            raise QuantizationError(
                f"quantize={self.quantize!r} is unknown; choose one of {', '.join(PRECISIONS)}"
            )
        if self.vae_dtype is not None and self.vae_dtype not in VAE_FORMATS:
            raise VaeFormatError(
                f"vae_dtype={self.vae_dtype!r}: must be one of {', '.join(VAE_FORMATS)}, or left "
                "out for the transformer's"
            )
        if self.offload < 0:
            raise OffloadError(f"offload={self.offload}: a number of blocks, 0 for none")
        if self.offload and self.quantize is not None:
            raise OffloadError(
                f"offload={self.offload} with quantize={self.quantize}: eight-bit weights stay on "
                "the device; leave one of the two out (`visavis plan` says which fits)"
            )

    @property
    def plain(self) -> bool:
        """Whether all of the transformer's weights are on the device as they are."""
        return self.quantize is None and not self.offload

    def check(self, device: str, *, compiled: bool = False, recorded: bool = False) -> None:
        """See that the other settings go with this; `device` as torch names it.

        Raises:
            QuantizationError: torchao is missing.
            OffloadError: a device whose memory is the host's, or a switch that needs weights to
                stay where they are.
        """
        if self.quantize is not None:
            require_torchao(self.quantize)
        if not self.offload:
            return
        if not device.startswith("cuda"):
            raise OffloadError(
                f"offload={self.offload} with device={device}: the weights are in host memory "
                "already; leave it out"
            )
        for name, on in (("compiled", compiled), ("recorded", recorded)):
            if on:
                raise OffloadError(
                    f"offload={self.offload} with {name}: its code expects weights to stay where "
                    "they are; leave one of the two out"
                )

    def check_vae(self, model: str, *, has_vae: bool) -> None:
        """See that a model has a video VAE to give a format to; raises VaeFormatError."""
        if self.vae_dtype is not None and not has_vae:
            raise VaeFormatError(
                f"vae_dtype={self.vae_dtype}: model {model!r} has no video VAE; leave it out"
            )

    def check_blocks(self, blocks: int) -> None:
        """See that a model has so many blocks to offload; raises OffloadError."""
        if self.offload > blocks:
            raise OffloadError(
                f"offload={self.offload}: the model has {blocks} blocks; offload at most these"
            )


def require_torchao(precision: Precision) -> None:
    """Raises QuantizationError where torchao is not installed."""
    if find_spec("torchao") is None:
        raise QuantizationError(
            f"quantize={precision}: needs torchao, which is missing; install visavis[gpu]"
        )
