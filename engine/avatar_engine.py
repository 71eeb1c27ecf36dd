"""The engine's front door: load a model, prepare avatars, open sessions."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from visavis.engine.batching import ChunkScheduler
from visavis.engine.codec.base import FrameSizeError, SizedCodec
from visavis.engine.codec.wan_compilation import speed_up_codec
from visavis.engine.costs import ChunkCosts, CostMeter, measure_costs, settled_clock
from visavis.engine.dit.compilation import speed_up
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.face.image import ImageSource
from visavis.engine.face.picture import frame_picture
from visavis.engine.model_parts import ModelParts
from visavis.engine.parallel.plan import ParallelError
from visavis.engine.parallel.worker_group import WorkerGroup
from visavis.engine.pipeline import Conditions, FlashTalkPipeline
from visavis.engine.placing import check_memory
from visavis.engine.plan import CHUNK_LENGTHS, FPS, new_frames
from visavis.engine.registry import Framing, model_spec
from visavis.engine.rest import at_rest
from visavis.engine.runtime import choose_device, choose_dtype, set_threads
from visavis.engine.schematic import schematic_portrait
from visavis.engine.session import AvatarSession
from visavis.engine.timeline import Chunk
from visavis.engine.warm_up import warm_shapes
from visavis.engine.weight_memory import QuantizationError, WeightMemory
from visavis.engine.weights import find_weights

logger = logging.getLogger(__name__)

_FEWEST_STEPS = 2
# A process that got less than this share of one CPU was waiting for others, not for itself.
_UNDISTURBED = 0.7


@dataclass(frozen=True, slots=True)
class Avatar:
    """A portrait ready to talk; any number of sessions may share it.

    `warnings` are sentences for the user about the picture.
    """

    portrait: Portrait
    conditions: Conditions

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.portrait.warnings


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """Time of a longest chunk over the time it plays, and the share of a CPU that it got."""

    realtime_factor: float
    cpu_share: float

    @property
    def too_slow(self) -> bool:
        """Not real time, and not for want of a CPU that other processes had."""
        return self.realtime_factor > 1 and self.cpu_share > _UNDISTURBED


class AvatarEngine:
    """One loaded model. Not thread-safe: it and its sessions belong to one thread."""

    fps = FPS

    def __init__(
        self,
        name: str,
        parts: ModelParts,
        *,
        device: torch.device,
        dtype: torch.dtype,
        framing: Framing = "face",
        num_steps: int = 4,
        calm: float = 1.0,
        frame_size: tuple[int, int] | None = None,
    ) -> None:
        """Assemble an engine from loaded parts; `load` is the usual way, and raises as this."""
        self.model = name
        self.device = device
        self.dtype = dtype
        self.num_steps = num_steps
        self.chunk_realtime_factor: float | None = None
        self.group: WorkerGroup | None = None
        self._pipeline = FlashTalkPipeline(
            parts.dit, parts.codec, parts.front_end, device, text=parts.text
        )
        self.scheduler = ChunkScheduler(self._pipeline)
        self._costs: ChunkCosts | None = None
        self._framing = framing
        self._calm = calm
        self._frame_size = self._checked_size(frame_size or parts.codec.frame_size)
        self._landmarker: FaceLandmarker | None = None

    @classmethod
    def load(
        cls,
        model: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        num_threads: int | None = None,
        frame_size: tuple[int, int] | None = None,
        group: WorkerGroup | None = None,
        compiled: bool = False,
        recorded: bool = False,
        memory: WeightMemory | None = None,
    ) -> AvatarEngine:
        """Load a model of the registry.

        Args:
            model: a registry name.
            weights: its weights folder, else found as `find_weights` says.
            dtype: float32 or bfloat16 for the transformer; None measures which is faster.
            num_threads: for tensor operations of the whole process; None: torch's choice.
            frame_size: (height, width) that sessions get unless they ask for another of
                `frame_sizes`; None: the model's own.
            group: processes that share the transformer's work, led by this one; its device and
                its own options count.
            compiled: compile the transformer's blocks and, on a GPU, the video VAE's norms.
            recorded: replay denoising steps and the video VAE's as CUDA graphs.
            memory: how the weights are held; None: as they are, on the device. In a group its own
                options count.

        Raises:
            QuantizationError, OffloadError, VaeFormatError: `memory` does not go with the rest;
                before weights are read.
            UnknownModelError, WeightsError, DeviceError, ConfigError, CheckpointError,
                FrameSizeError: all ValueErrors that say what to change.
        """
        spec = model_spec(model)
        threads = set_threads(num_threads)
        target = choose_device(device) if group is None else group.device
        memory = (memory or WeightMemory()) if group is None else group.options.memory
        if group is not None:
            compiled, recorded = group.options.compiled, group.options.recorded
        check_memory(memory, target, compiled=compiled, recorded=recorded)
        memory.check_vae(model, has_vae=spec.load_vae is not None)
        if group is not None and spec.weights is None and not memory.plain:
            raise QuantizationError(
                f"model={model!r} has random weights, which a group shares as they are; leave "
                "quantize and offload out"
            )
        chosen = choose_dtype(target, dtype)
        start = time.perf_counter()
        folder = None if spec.weights is None else find_weights(spec.weights, weights)
        if group is not None:
            group.announce(model, folder, chosen)
        parts = spec.load(spec.dit, folder, target, chosen, memory)
        speed_up_codec(parts.codec, compiled=compiled)
        if group is not None:
            parts = group.lead(parts)
        else:
            speed_up(parts.dit, compiled=compiled, recorded=recorded)
        speed_up_codec(parts.codec, recorded=recorded)
        logger.info(
            "loaded %s from %s in %.1f s: %s, %s, %d threads",
            model,
            folder or "random numbers",
            time.perf_counter() - start,
            target,
            chosen,
            threads,
        )
        engine = cls(
            model,
            parts,
            device=target,
            dtype=chosen,
            framing=spec.framing,
            num_steps=spec.num_steps,
            calm=spec.calm,
            frame_size=frame_size or spec.frame_size,
        )
        engine.scheduler.warmed_sizes_only = compiled or recorded
        if group is not None:
            engine.group = group
            engine.pipeline.copies = group.watched(engine.pipeline.copies)
        return engine

    @property
    def listens(self) -> bool:
        """Whether `generate_idle(listening=True)` looks different from idling."""
        return self._calm < 1

    @property
    def pipeline(self) -> FlashTalkPipeline:
        """The model's parts, for those who go chunk by chunk without a session."""
        return self._pipeline

    @property
    def costs(self) -> ChunkCosts | None:
        """What chunks cost now, None before `warm_up`; on a CPU it follows the work."""
        return self._costs if self.scheduler.meter is None else self.scheduler.meter.costs

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames of a session that asks for nothing else, in pixels."""
        return self._frame_size

    @property
    def frame_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every (height, width) that a session may ask for, the smallest first.

        One picture serves them all: an avatar is prepared once, for all of them.
        """
        codec = self._pipeline.codec
        return codec.frame_sizes if isinstance(codec, SizedCodec) else (codec.frame_size,)

    def _checked_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        size = frame_size[0], frame_size[1]
        if size not in self.frame_sizes:
            allowed = ", ".join(f"{height}x{width}" for height, width in self.frame_sizes)
            raise FrameSizeError(
                f"frame_size={size[0]}x{size[1]}: model {self.model!r} makes {allowed} "
                "(height x width); ask for one of these"
            )
        return size

    def prepare_avatar(
        self,
        image: ImageSource | Portrait,
        *,
        on_step: Callable[[float], None] | None = None,
        settle: bool = True,
    ) -> Avatar:
        """Find the face, frame it, and encode all that is constant for it.

        The 14B model takes the whole picture instead, and needs no face in it. `on_step` is told
        how much of its steps (framing, the codec's reference, conditions, rest) are done, above 0
        to 1. Without `settle` the last one is left to `settle_avatar`, for those who have something
        urgent to do in between.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: it shows no usable face.
        """
        if not isinstance(image, Portrait):
            if self._landmarker is None:
                self._landmarker = FaceLandmarker()
            if self._framing == "picture":
                image = frame_picture(image, self.frame_size, landmarker=self._landmarker)
            else:
                image = frame_portrait(
                    image, fine_size=self.frame_sizes[-1][0], landmarker=self._landmarker
                )
        tell = on_step or (lambda share: None)
        tell(1 / 4)
        with torch.inference_mode():
            codec = self._pipeline.codec
            reference = codec.reference(image)
            if isinstance(codec, SizedCodec):
                reference = codec.resized(reference, self.frame_size)
            tell(2 / 4)
            conditions = self._pipeline.conditions(reference)
        tell(3 / 4)
        avatar = Avatar(image, conditions)
        if settle:
            avatar = self.settle_avatar(avatar)
            tell(1.0)
        return avatar

    def settle_avatar(self, avatar: Avatar) -> Avatar:
        """The avatar with its rest measured, see `at_rest`: a silent chunk where the portrait needs
        it, nothing elsewhere."""
        return replace(
            avatar, conditions=at_rest(self._pipeline, avatar.conditions, self.num_steps)
        )

    def open_session(
        self,
        avatar: Avatar,
        *,
        input_rate: int = 16_000,
        seed: int = 0,
        num_steps: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> AvatarSession:
        """A new conversation; `num_steps` denoising steps a chunk (None: the model's own).

        `frame_size` is the (height, width) of its frames, one of `frame_sizes` (None: the engine's
        own `frame_size`). Sessions of one avatar may differ in it.

        Raises:
            FrameSizeError: a size that the model does not make.
            PlanError: `input_rate` is not a whole number in 8000..48000.
            SamplerError: `num_steps` is not in 1..100.
        """
        size = self._checked_size(frame_size or self.frame_size)
        conditions, codec = avatar.conditions, self._pipeline.codec
        if isinstance(codec, SizedCodec):
            conditions = replace(conditions, reference=codec.resized(conditions.reference, size))
        return AvatarSession(
            self._pipeline,
            conditions,
            input_rate=input_rate,
            seed=seed,
            num_steps=self.num_steps if num_steps is None else num_steps,
            calm=self._calm,
        )

    def warm_up(self) -> float:
        """Run a chunk of each length and, where shapes have code or recordings of their own, a
        step of each that sessions will ask for: no user waits for first-call costs.

        Sets `costs`, and from them how many chunks `scheduler` denoises together; and
        `chunk_realtime_factor`: time for the longest chunk over the time its new frames play,
        decode included. Where this machine cannot keep up, sessions get two denoising steps by
        default instead of four, and the log says so.

        Returns:
            Seconds spent.
        """
        start = time.perf_counter()
        avatar = self.prepare_avatar(schematic_portrait(self.frame_size[0]))
        session = self.open_session(avatar)
        for chunk_frames in CHUNK_LENGTHS:
            list(session.generate_idle(chunk_frames))
        measured = self._measure(avatar)
        if measured.too_slow and self.num_steps > _FEWEST_STEPS:
            logger.warning(
                "a chunk takes %.2f times as long as it plays with %d denoising steps; "
                "sessions get %d by default on this machine",
                measured.realtime_factor,
                self.num_steps,
                _FEWEST_STEPS,
            )
            self.num_steps = _FEWEST_STEPS
            measured = self._measure(avatar)
        costs = measure_costs(
            self._pipeline,
            lambda length: self._begin(avatar, length),
            clock=settled_clock(self.device),
        )
        self._costs, self.scheduler.caps = costs, costs.caps
        self._warm_shapes(avatar)
        # Elsewhere a step returns before it is done: its time is that of launching it.
        if self.device.type == "cpu":
            self.scheduler.meter = CostMeter(costs)
        logger.info("chunks denoised together, by length: %s", self.scheduler.caps)
        factor = self.chunk_realtime_factor = measured.realtime_factor
        logger.info("a %d-frame chunk takes %.2f of the time it plays", CHUNK_LENGTHS[-1], factor)
        return time.perf_counter() - start

    def restart_group(self) -> None:
        """Replace the followers that were lost and warm the new ones up, as at the start.

        Sessions and avatars stay; their chunks under way end with GroupLostError, as if they had
        never been begun.

        Raises:
            GroupLostError: it did not succeed; another try may.
            ParallelError: there is no group, or torchrun started it.
        """
        if self.group is None:
            raise ParallelError("this engine has no group; load it with one")
        self.group.restart()
        avatar = self.prepare_avatar(schematic_portrait(self.frame_size[0]))
        session = self.open_session(avatar)
        for chunk_frames in CHUNK_LENGTHS:
            list(session.generate_idle(chunk_frames))
        self._warm_shapes(avatar)

    def _warm_shapes(self, avatar: Avatar) -> None:
        if self.scheduler.warmed_sizes_only:
            warm_shapes(self._pipeline, avatar.conditions, self.scheduler.caps)

    def _begin(self, avatar: Avatar, chunk_frames: int) -> Chunk:
        return self.open_session(avatar).begin_idle(chunk_frames)

    def _measure(self, avatar: Avatar) -> ChunkCost:
        """Best of two longest chunks: the first may still pay for memory and threads."""
        session, longest = self.open_session(avatar), CHUNK_LENGTHS[-1]
        clock = settled_clock(self.device)
        costs = []
        for _ in range(2):
            start, cpu_start = clock(), time.process_time()
            list(session.generate_idle(longest))
            seconds = clock() - start
            cpu_share = (time.process_time() - cpu_start) / seconds
            costs.append(ChunkCost(seconds * FPS / new_frames(longest), cpu_share))
        return min(costs, key=lambda cost: cost.realtime_factor)
