"""The 14B model's front end: the last eight seconds, heard anew for every chunk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.engine.audio.front_end import HISTORY_FRAMES
from visavis.engine.audio.wav2vec import Wav2VecFeatures
from visavis.engine.plan import CHUNK_LENGTHS, ENGINE_SAMPLES_PER_FRAME, FPS, new_frames
from visavis.engine.side_stream import SideStream

HEARD_SECONDS = 8
HEARD_FRAMES = HEARD_SECONDS * FPS
HEARD_SAMPLES = HEARD_FRAMES * ENGINE_SAMPLES_PER_FRAME


class Wav2VecFrontEnd:
    """`AudioFrontEnd` of the released model (method section 1.3, step 5).

    Nothing of an earlier chunk is reused: loudness and variance are taken over all eight seconds,
    the zeros before a session's first sound included. So the level at which speech enters the
    encoder falls as a session begins; the model was distilled and run with exactly that.
    """

    def __init__(self, encoder: Wav2VecFeatures, *, begins_early: bool | None = None) -> None:
        """`begins_early`: see `begin`; None: on a GPU. A CPU has no idle part to do it."""
        self._encoder = encoder
        self._device = encoder.model.device
        self._begins_early = self._device.type == "cuda" if begins_early is None else begins_early
        self._side = SideStream(self._device)
        self._thread: ThreadPoolExecutor | None = None

    @property
    def past_samples(self) -> int:
        """Enough for the shortest chunk; longer ones bring more of the eight seconds themselves."""
        return HEARD_SAMPLES - new_frames(CHUNK_LENGTHS[0]) * ENGINE_SAMPLES_PER_FRAME

    @property
    def feature_shape(self) -> tuple[int, int]:
        return self._encoder.shape

    def features(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        heard = np.concatenate([past, new])[-HEARD_SAMPLES:]
        wanted = HISTORY_FRAMES + len(new) // ENGINE_SAMPLES_PER_FRAME
        encoded: NDArray[np.float32] = self._encoder(heard, HEARD_FRAMES)[-wanted:].cpu().numpy()
        return encoded

    def begin(
        self, past: NDArray[np.float32], new: NDArray[np.float32]
    ) -> Callable[[], NDArray[np.float32]] | None:
        """See `EarlyFrontEnd`: on a thread and a stream of their own, so that nothing that is
        under way waits for the host, nor the host for it."""
        if not self._begins_early:
            return None
        if self._thread is None:
            # As many threads as the caller has: sums of another order are other numbers.
            self._thread = ThreadPoolExecutor(
                1,
                thread_name_prefix="hearing",
                initializer=torch.set_num_threads,
                initargs=(torch.get_num_threads(),),
            )
        return self._thread.submit(self._beside, past, new).result

    def _beside(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._side.apart():
            return self.features(past, new)
