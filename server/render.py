"""A portrait and a recording in, a talking video out: `visavis render`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.face.image import ImageSource
from visavis.engine.plan import FPS
from visavis.engine.registry import model_spec
from visavis.engine.session import AvatarFrame, AvatarSession
from visavis.engine.weight_memory import WeightMemory
from visavis.server.audio_file import AudioFile
from visavis.server.background_writer import BackgroundWriter
from visavis.server.mp4_writer import Mp4Writer
from visavis.server.provenance import Provenance

# The longest chunk needs 1.12 s; with this much read ahead every chunk but the last is a long one.
READ_AHEAD_S = 2


class RenderError(ValueError):
    """The video cannot be written; the message says why and what would help.

    Trouble with the picture raises ImageError or NoFaceError, with the sound AudioFileError, with
    the model's files WeightsError; all of them are ValueErrors with a message for the user.
    """


class RenderEngine(Protocol):
    """What rendering needs of `AvatarEngine`."""

    @property
    def frame_size(self) -> tuple[int, int]: ...
    def prepare_avatar(self, image: ImageSource | Portrait) -> Avatar: ...
    def open_session(
        self,
        avatar: Avatar,
        *,
        input_rate: int = ...,
        seed: int = ...,
        num_steps: int | None = ...,
        frame_size: tuple[int, int] | None = ...,
    ) -> AvatarSession: ...


def render(
    portrait: str | Path,
    speech: str | Path,
    output: str | Path,
    *,
    model: str = "embedded",
    weights: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    num_steps: int | None = None,
    memory: WeightMemory | None = None,
    compiled: bool = False,
    recorded: bool = False,
    seed: int = 0,
    frame_size: tuple[int, int] | None = None,
    watermark: str = "",
    engine: RenderEngine | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Write an MP4 (H.264 at 25 fps, mono AAC at the recording's rate) of the portrait talking.

    Every input is checked before the model is loaded, memory use does not grow with the length of
    the recording, and `output` appears (or is replaced) only when it is complete. `engine` reuses
    a loaded model instead of `model`, `weights`, `device` and `num_threads`. With `progress`, a
    bar and the warnings about the picture go to stderr. `frame_size` is (height, width), one of the
    model's (None: its own).

    The file's metadata say that it is synthetic and what made it; `watermark` is a text that is
    also seen. `memory` says how the model's weights are held, `compiled` and `recorded` how it is
    run, as `AvatarEngine.load` does.

    Returns the warnings about the picture, as sentences for the user. Raises the ValueErrors that
    RenderError's description lists.
    """
    console = Console(stderr=True, quiet=not progress)
    target = Path(output)
    _check_target(target, {Path(portrait), Path(speech)})
    with AudioFile(speech) as audio, _complete_or_nothing(target) as part:
        needs_face = engine is None and model_spec(model).framing == "face"
        fine_size = model_spec(model).fine_size
        framed = frame_portrait(Path(portrait), fine_size=fine_size) if needs_face else None
        engine = engine or AvatarEngine.load(
            model,
            weights=weights,
            device=device,
            num_threads=num_threads,
            compiled=compiled,
            recorded=recorded,
            memory=memory,
        )
        avatar = engine.prepare_avatar(framed or Path(portrait))
        for warning in avatar.warnings:
            console.print(f"[yellow]note:[/] {warning}", highlight=False)
        session = engine.open_session(
            avatar, input_rate=audio.rate, seed=seed, num_steps=num_steps, frame_size=frame_size
        )
        total = None if audio.duration_s is None else max(1, round(audio.duration_s * FPS))
        with (
            _bar(console, target.name, total) as advance,
            Mp4Writer(
                part,
                frame_size or engine.frame_size,
                audio.rate,
                provenance=Provenance(model=model),
                watermark=watermark,
            ) as video,
            BackgroundWriter(video.write) as writer,
        ):
            for frame in speak(session, audio.blocks(), audio.rate):
                writer.put(frame)
                advance()
    return avatar.warnings


def speak(
    session: AvatarSession, blocks: Iterator[NDArray[np.int16]], rate: int
) -> Iterator[AvatarFrame]:
    """All frames of one utterance that comes in blocks; holds READ_AHEAD_S of sound."""
    for block in blocks:
        session.push_audio(block)
        while session.buffered_samples >= READ_AHEAD_S * rate and session.next_chunk() is not None:
            yield from session.generate()
    session.commit()
    while session.next_chunk() is not None:
        yield from session.generate()


def _check_target(target: Path, inputs: set[Path]) -> None:
    if target.suffix.lower() not in (".mp4", ".m4v"):
        raise RenderError(f"output={target}: MP4 is what can be written; name it *.mp4")
    if target.is_dir():
        raise RenderError(f"output={target} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise RenderError(f"output={target}: there is no folder {target.parent}; create it first")
    if any(path.exists() and target.exists() and target.samefile(path) for path in inputs):
        raise RenderError(f"output={target} is one of the inputs; give another name")


@contextmanager
def _complete_or_nothing(target: Path) -> Iterator[Path]:
    """A file beside the target that takes its name at the end, or goes if anything fails."""
    part = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise RenderError(
            f"output={target} cannot be written ({error.strerror}); choose another folder"
        ) from error
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        raise RenderError(f"output={target} cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _bar(console: Console, name: str, total: int | None) -> Iterator[Callable[[], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)

        def advance() -> None:
            bar.advance(task)

        yield advance
        # The file's claimed length may be off by a frame; the bar should end full.
        done = bar.tasks[task].completed
        bar.update(task, total=done)
