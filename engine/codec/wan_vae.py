"""Wan 2.1's video VAE: normalised latents, decoding one latent at a time.

Holds weights and no state: what a decode remembers belongs to its `WanDecoding`.

Letters: B batch, C latent channels, T latent frames, h w latent size, F frames, H W frame size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visavis.engine.codec.wan_network import TEMPORAL_STRIDE, WanConfig, WanNetwork
from visavis.engine.codec.wan_recording import RecordedSteps, VideoStep
from visavis.engine.codec.wan_stream import Border, VideoStream
from visavis.engine.dit.step_graph import Capture, capture_cuda_graph
from visavis.engine.side_stream import SideStream
from visavis.engine.tensor_files import Move, TensorFiles, move_tensors

SPATIAL_STRIDE = 8

_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def vae_key(original: str, res_blocks: int = 2) -> str:
    """The name in `AutoencoderKLWan` of a tensor of the original's `WanVAE_`."""
    name = re.sub(r"^conv1\.", "quant_conv.", original)
    name = re.sub(r"^conv2\.", "post_quant_conv.", name)
    name = name.replace("coder.conv1.", "coder.conv_in.")
    name = name.replace(".head.0.", ".norm_out.").replace(".head.2.", ".conv_out.")
    name = re.sub(r"\.middle\.(\d)", lambda m: f".mid_block.{_MIDDLE[m[1]]}", name)
    name = re.sub(r"\.residual\.(\d)", lambda m: f".{_RESIDUAL[m[1]]}", name)
    name = name.replace(".shortcut.", ".conv_shortcut.").replace(".downsamples.", ".down_blocks.")
    upsample = re.search(r"\.upsamples\.(\d+)", name)
    if upsample:
        # the decoder's levels hold res_blocks + 1 residual blocks and, but for the last, a resize
        level, index = divmod(int(upsample[1]), res_blocks + 2)
        part = f"resnets.{index}" if index <= res_blocks else "upsamplers.0"
        name = name.replace(upsample[0], f".up_blocks.{level}.{part}")
    return name


class WanVAE:
    """Encode and decode with the latents' mean and deviation taken out; float32 or bfloat16."""

    def __init__(self, network: WanNetwork) -> None:
        """The network is frozen; it must have its weights and its device."""
        self.network = network.requires_grad_(False).eval()
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.mean = torch.tensor(network.config.latents_mean, device=self.device)
        self.std = torch.tensor(network.config.latents_std, device=self.device)
        self.side = SideStream(self.device)
        self.encode_step: VideoStep = network.encoder
        self.decode_step: VideoStep = network.decoder
        self._capture: Capture = capture_cuda_graph

    def record(self, capture: Capture | None = None) -> None:
        """Replay the work of each latent from now on; what was recorded before is forgotten.

        Call it once the network has its weights, and again when its process group is another.
        `capture`: other than a CUDA graph in tests; None: as before.
        """
        self._capture = capture or self._capture
        self.encode_step = RecordedSteps(self.network.encoder, self.device, self._capture)
        self.decode_step = RecordedSteps(self.network.decoder, self.device, self._capture)

    @property
    def recorded(self) -> bool:
        """Whether the work of each latent is replayed."""
        return isinstance(self.decode_step, RecordedSteps)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        config: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> WanVAE:
        """Read the original's checkpoint (.pth or safetensors), strictly.

        `config`: sizes that differ from the released model's, as `WanConfig` names them.

        Raises:
            WanConfigError: a size that cannot work.
            CheckpointError: a tensor is missing, surplus or of another shape.
        """
        sizes = WanConfig.from_mapping(config or {})
        with torch.device("meta"):
            network = WanNetwork(sizes)
        with TensorFiles(path) as files:
            moves = [Move(key, vae_key(key, sizes.num_res_blocks)) for key in files.names]
            move_tensors(network, files, moves, dtype=dtype, device=device)
        return cls(network)

    @property
    def latent_channels(self) -> int:
        return self.network.config.z_dim

    @property
    def runs_beside(self) -> bool:
        """Whether a decode may gain by running beside the transformer: on a GPU."""
        return self.device.type == "cuda"

    @torch.inference_mode()
    def encode(self, video_BCFHW: Tensor, border: Border | None = None) -> Tensor:
        """RGB in [-1, 1], F = 1 + 4 n -> normalised latents float32 [B, C, T, h, w] (the mode).

        `border`: this process has a part of the pictures, and that joins it to the others'.

        Raises:
            ValueError: another number of frames.
        """
        if video_BCFHW.shape[2] % TEMPORAL_STRIDE != 1:
            raise ValueError(
                f"video has {video_BCFHW.shape[2]} frames: must be 1 + {TEMPORAL_STRIDE} n; "
                "repeat the last one"
            )
        return torch.stack([self._encode_one(video, border) for video in video_BCFHW])

    def _encode_one(self, video_CFHW: Tensor, border: Border | None) -> Tensor:
        network, stream = self.network, VideoStream(border)
        frames = video_CFHW.to(self.device, self.dtype).permute(1, 2, 3, 0)
        starts = range(1, len(frames), TEMPORAL_STRIDE)
        parts = [frames[:1], *(frames[start : start + TEMPORAL_STRIDE] for start in starts)]
        encoded = torch.cat([self.encode_step(part, stream) for part in parts])
        mode: Tensor = network.quant_conv(encoded)[..., : self.latent_channels].float()
        return ((mode - self.mean) / self.std).permute(3, 0, 1, 2).contiguous()

    def begin(self, batch: int = 1, border: Border | None = None) -> WanDecoding:
        """Start decoding videos of which the latents come bit by bit."""
        return WanDecoding(self, [VideoStream(border) for _ in range(batch)])

    def decode(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """Frames of each latent as soon as it is decoded: [B, 3, 1 or 4, H, W] in [-1, 1].

        Equal to the bit to any other division of the latents; several may run side by side.
        """
        return self.begin(len(latents_BCTHW)).push(latents_BCTHW)


class WanDecoding:
    """A video on its way through the decoder.

    The first latents of a chunk are known before it is denoised: push them while that goes on, and
    the others when they are there. The frames are the same to the bit.
    """

    def __init__(self, vae: WanVAE, streams: list[VideoStream]) -> None:
        self._vae = vae
        self._streams = streams
        self._beside: torch.cuda.Event | None = None

    def fork(self) -> WanDecoding:
        """A second decoding that goes on from here; its memory is not copied."""
        self.join()
        return WanDecoding(self._vae, [stream.fork() for stream in self._streams])

    @torch.inference_mode()
    def push(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """Frames of each of these latents, [B, 3, 1 or 4, H, W] float32 in [-1, 1]."""
        self.join()
        yield from self._frames(latents_BCTHW)

    @torch.inference_mode()
    def push_beside(self, latents_BCTHW: Tensor) -> list[Tensor]:
        """As `push`, beside what is ordered next on a GPU: `join` before the frames are used."""
        side = self._vae.side
        with side.beside(latents_BCTHW):
            frames = list(self._frames(latents_BCTHW))
        self._beside = side.mark()
        return frames

    def join(self) -> None:
        """What is ordered next comes after all that was pushed beside."""
        self._vae.side.join(self._beside)
        self._beside = None

    def _frames(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        vae, network = self._vae, self._vae.network
        latents = latents_BCTHW.to(vae.device).float().permute(0, 2, 3, 4, 1)
        features = network.post_quant_conv((latents * vae.std + vae.mean).to(vae.dtype))
        for t in range(features.shape[1]):
            decoded = [
                vae.decode_step(feature[t : t + 1], stream)
                for feature, stream in zip(features, self._streams, strict=True)
            ]
            yield torch.stack(decoded).permute(0, 4, 1, 2, 3).float().clamp(-1, 1)
