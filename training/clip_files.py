"""Video files of people who speak: frames at 25 fps and sound at 16 kHz, side by side.

Legend: F frames, H W frame size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray
from PIL import Image

from visavis.engine.image import fit_image
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, FPS

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")


class ClipError(ValueError):
    """A clip that cannot be used: names the file and why."""


@dataclass(frozen=True, slots=True)
class Clip:
    """frames uint8 [F, H, W, 3]; audio float32 [640 F] in -1..1, 16 kHz; caption."""

    name: str
    frames: NDArray[np.uint8]
    audio: NDArray[np.float32]
    caption: str


def clip_paths(folder: Path) -> list[Path]:
    """Video files of a folder, by name.

    Raises:
        ClipError: there is none.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ClipError(f"clips={folder}: no video ({', '.join(SUFFIXES)}) in this folder")
    return paths


def caption_of(path: Path, default: str) -> str:
    """What stands in the text file of the clip's name, or the default."""
    text = path.with_suffix(".txt")
    return text.read_text(encoding="utf-8").strip() if text.is_file() else default


def read_clip(path: Path, frame_size: tuple[int, int], default_caption: str) -> Clip:
    """Frames that cover `frame_size` (H, W), cut in the middle; sound cut or padded to them.

    Raises:
        ClipError: FFmpeg cannot read it, or it lacks a picture or a sound track.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video or not container.streams.audio:
                raise ClipError(f"{path}: has no video or no audio track")
            frames = np.stack(list(_frames(container, frame_size)))
        with av.open(str(path)) as container:
            audio = _sound(container)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, ClipError):
            raise
        raise ClipError(f"{path}: cannot be read ({error})") from error
    wanted = len(frames) * ENGINE_SAMPLES_PER_FRAME
    audio = np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))
    return Clip(path.stem, frames, audio, caption_of(path, default_caption))


def _frames(
    container: av.container.InputContainer, frame_size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """The picture that is on screen at each 1/25 s; the next one, where the first comes later."""
    shown: NDArray[np.uint8] | None = None
    count, begin = 0, None
    for frame in container.decode(video=0):
        at = float(frame.time or 0.0)
        begin = at if begin is None else begin
        while shown is not None and count / FPS < at - begin - 1e-6:
            yield shown
            count += 1
        picture = fit_image(Image.fromarray(frame.to_ndarray(format="rgb24")), frame_size)
        shown = picture.permute(1, 2, 0).numpy()
    if shown is not None:
        yield shown


def _sound(container: av.container.InputContainer) -> NDArray[np.float32]:
    resampler = AudioResampler(format="flt", layout="mono", rate=ENGINE_SAMPLES_PER_FRAME * FPS)
    blocks = []
    for frame in [*container.decode(audio=0), None]:
        blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    joined: NDArray[np.float32] = np.concatenate([np.zeros(0, np.float32), *blocks])
    return joined.astype(np.float32)
