"""Encode clips once for training a model of the released size.

    python -m visavis.training.precompute --weights FOLDER --clips clips --out runs/store

The folder of clips holds videos of one speaking person each, with sound, and a text file of a
clip's name where it has a caption of its own. Encoders and VAE are the engine's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cyclopts import App
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH, AudioFrontEnd
from visavis.engine.codec.wan import WanCodec, WanReference
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait
from visavis.engine.image import to_signed
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, MOTION_FRAMES
from visavis.training.checkpoints import step_seed
from visavis.training.clip_files import Clip, ClipError, caption_of, clip_paths, read_clip
from visavis.training.conditioning_store import (
    StoredSequence,
    StoredWindow,
    StoreSpec,
    StoreWriter,
)
from visavis.training.progress import configure_logging, log

app = App(help=__doc__)
Box = tuple[float, float, float, float]
FindFace = Callable[[NDArray[np.uint8]], Box | None]
"""Frame [H, W, 3] -> its largest face's (left, top, right, bottom) in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """What is taken of a clip: `windows` of each of `frame_counts` for stage 1, sequences of
    `chunks` chunks for stage 2."""

    chunk_frames: int = 33
    frame_counts: tuple[int, ...] = (33, 17, 9)
    chunks: int = 5
    windows: int = 4
    sequences: int = 1
    seed: int = 0

    @property
    def new_frames(self) -> int:
        """Frames that a chunk adds."""
        return self.chunk_frames - MOTION_FRAMES

    @property
    def sequence_frames(self) -> int:
        """Frames of a sequence."""
        return MOTION_FRAMES + self.chunks * self.new_frames


class ClipEncoder:
    """Windows and sequences of clips, with the engine's codec and front end."""

    def __init__(
        self, codec: WanCodec, front_end: AudioFrontEnd, plan: ClipPlan, find_face: FindFace
    ) -> None:
        self.codec, self.front_end, self.plan = codec, front_end, plan
        self._find_face = find_face

    def windows(self, clip: Clip, text: int, rng: np.random.Generator) -> list[StoredWindow]:
        """Windows of every length at random places, each with a reference frame from near but
        outside of it; none of a length that the clip is too short for."""
        found, length = [], len(clip.frames)
        for frames in self.plan.frame_counts:
            if length <= frames:
                continue
            for start in rng.integers(length - frames + 1, size=self.plan.windows):
                found.append(self._window(clip, int(start), frames, text, rng))
        return found

    def _window(
        self, clip: Clip, start: int, frames: int, text: int, rng: np.random.Generator
    ) -> StoredWindow:
        end = start + frames
        # InfiniteTalk's rule (method section 1.8): as far outside as the window is long.
        before = np.arange(max(0, start - frames), start)
        after = np.arange(end, min(len(clip.frames), end + frames))
        reference = self._reference(clip.frames[int(rng.choice(np.concatenate([before, after])))])
        middle = clip.frames[start + frames // 2]
        return StoredWindow(
            latents=self._encode(clip.frames[start:end]),
            cond=self.codec.cond_latents(reference, frames),
            features=self._heard(clip, start, frames),
            face=self._face_mask(self._find_face(middle)),
            image=self.codec.image_tokens(reference),
            text=text,
        )

    def sequences(self, clip: Clip, text: int, rng: np.random.Generator) -> list[StoredSequence]:
        """Sequences at random places; the reference is the first frame, as for a session."""
        length = len(clip.frames) - self.plan.sequence_frames
        if length < 0:
            return []
        starts = rng.integers(length + 1, size=self.plan.sequences)
        return [self._sequence(clip, int(start), text) for start in starts]

    def _sequence(self, clip: Clip, start: int, text: int) -> StoredSequence:
        picture = clip.frames[start]
        reference = self._reference(picture)
        heard = [
            self._heard(clip, start + i * self.plan.new_frames, self.plan.chunk_frames)
            for i in range(self.plan.chunks)
        ]
        return StoredSequence(
            start=self.codec.initial_motion(reference),
            history=self._encode(clip.frames[start : start + MOTION_FRAMES]),
            cond=self.codec.cond_latents(reference, self.plan.chunk_frames),
            features=torch.stack(heard),
            picture=torch.from_numpy(picture.copy()),
            landmarks=torch.zeros(0, 2),
            image=self.codec.image_tokens(reference),
            text=text,
        )

    def _reference(self, frame: NDArray[np.uint8]) -> WanReference:
        return self.codec.reference(Portrait(frame, np.zeros((0, 2), np.float32)))

    def _encode(self, frames_FHW3: NDArray[np.uint8]) -> Tensor:
        video = to_signed(torch.from_numpy(frames_FHW3)).permute(3, 0, 1, 2)
        latents: Tensor = self.codec.vae.encode(video[None].to(self.codec.vae.device))[0]
        return latents

    def _heard(self, clip: Clip, start: int, frames: int) -> Tensor:
        """Features [F + 2, L, C] of the chunk that begins at a frame, when it is the newest: a
        short one hears less of what comes."""
        begin = (start + MOTION_FRAMES) * ENGINE_SAMPLES_PER_FRAME
        end = (start + frames) * ENGINE_SAMPLES_PER_FRAME
        wanted = self.front_end.past_samples
        past = clip.audio[max(0, begin - wanted) : begin]
        past = np.pad(past, (wanted - len(past), 0))
        features = self.front_end.features(past, clip.audio[begin:end])
        assert len(features) == frames + WINDOW_REACH
        return torch.from_numpy(features)

    def _face_mask(self, box: Box | None) -> Tensor:
        """1 in the latent cells that the box touches, [h, w]; all 0 without a face."""
        height, width = self.codec.latent_size
        mask = torch.zeros(height, width)
        if box is not None:
            down, across = self.codec.frame_size[0] / height, self.codec.frame_size[1] / width
            left, top = max(0, int(box[0] / across)), max(0, int(box[1] / down))
            right, bottom = int(np.ceil(box[2] / across)), int(np.ceil(box[3] / down))
            mask[top : max(bottom, 0), left : max(right, 0)] = 1
        return mask


def largest_face() -> FindFace:
    """The engine's detector."""
    landmarker = FaceLandmarker()

    def find(frame: NDArray[np.uint8]) -> Box | None:
        faces = landmarker.detect(frame)
        return faces[0].box if faces else None

    return find


def write_store(
    out: Path,
    clips: Sequence[Path],
    encoder: ClipEncoder,
    spec: StoreSpec,
    texts: dict[str, int],
    features: Sequence[Tensor],
    *,
    default_caption: str,
    dtype: torch.dtype = torch.float16,
) -> dict[str, int]:
    """Encode all clips; those that cannot be read are named in the log and left out.

    Args:
        texts: caption -> its row of `features`, whose first row is the empty prompt.

    Returns:
        Numbers of clips, windows and sequences.
    """
    writer = StoreWriter(out, spec, features, dtype=dtype)
    counts = {"clips": 0, "windows": 0, "sequences": 0}
    for number, path in enumerate(clips):
        try:
            clip = read_clip(path, encoder.codec.frame_size, default_caption)
        except ClipError as error:
            log.warning("left out: %s", error)
            continue
        text = texts.get(clip.caption, 0)
        rng = np.random.default_rng(step_seed(encoder.plan.seed, number))
        windows = encoder.windows(clip, text, rng)
        sequences = encoder.sequences(clip, text, rng)
        for window in windows:
            writer.add(window)
        for sequence in sequences:
            writer.add(sequence)
        counts["clips"] += 1
        counts["windows"] += len(windows)
        counts["sequences"] += len(sequences)
        log.info(
            "%s: %d frames, %d windows, %d sequences",
            clip.name,
            len(clip.frames),
            len(windows),
            len(sequences),
        )
    writer.close()
    return counts


@app.default
def main(
    *,
    weights: Path,
    clips: Path,
    out: Path = Path("runs/store"),
    device: str = "cpu",
    chunks: int = 5,
    windows: int = 4,
    frame_counts: tuple[int, ...] = (33, 17, 9),
    sequences: int = 1,
    seed: int = 0,
) -> None:
    """Encode clips for training the 14B model.

    Args:
        weights: folder of the released checkpoint, see docs/flashtalk-14b.md.
        clips: folder of videos and captions.
        out: folder of the store.
        device: where the encoders run, "cuda" on a GPU.
        chunks: chunks of a stage-2 sequence, at least the recipe's max_chunks.
        windows: windows of each clip and length, for stage 1.
        frame_counts: their lengths in frames, those of the recipe.
        sequences: sequences of each clip, for stage 2.
        seed: of the places that are drawn.
    """
    from visavis.engine.flashtalk_14b import PROMPT, encode_prompts, load_encoders

    configure_logging()
    torch.set_grad_enabled(False)
    paths = clip_paths(clips)
    captions = sorted({caption_of(path, PROMPT) for path in paths})
    where = torch.device(device)
    features = encode_prompts(weights, ["", *captions], where)
    codec, front_end = load_encoders(weights, where, torch.float32)
    plan = ClipPlan(
        chunks=chunks,
        windows=windows,
        frame_counts=frame_counts,
        sequences=sequences,
        seed=seed,
    )
    counts = write_store(
        out,
        paths,
        ClipEncoder(codec, front_end, plan, largest_face()),
        StoreSpec(model="flashtalk-14b", chunk_frames=plan.chunk_frames),
        {caption: row + 1 for row, caption in enumerate(captions)},
        features,
        default_caption=PROMPT,
    )
    log.info("wrote %s: %s", out, ", ".join(f"{n} {kind}" for kind, n in counts.items()))


if __name__ == "__main__":
    app()
