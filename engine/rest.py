"""What an avatar looks like at rest, measured once when it is prepared.

A model that has to change a portrait before it is at rest, as one with an open mouth, reads off the
picture how, and not to the pixel. Whatever is left shows in every pause.
"""

from dataclasses import replace

import numpy as np
import torch

from visavis.engine.codec.base import RestingCodec
from visavis.engine.pipeline import Conditions, FlashTalkPipeline
from visavis.engine.plan import CHUNK_LENGTHS, ENGINE_SAMPLES_PER_FRAME, new_frames

_SEED = 0


@torch.inference_mode()
def at_rest(pipeline: FlashTalkPipeline, conditions: Conditions, num_steps: int) -> Conditions:
    """The conditions with a reference that shows the model's rest as rest.

    Costs a silent chunk of the longest kind without its decoding, and nothing for a codec or a
    portrait that needs none.
    """
    codec = pipeline.codec
    if not (isinstance(codec, RestingCodec) and codec.needs_rest(conditions.reference)):
        return conditions
    past = np.zeros(pipeline.front_end.past_samples, np.float32)
    frames = new_frames(CHUNK_LENGTHS[-1])
    silence = np.zeros(frames * ENGINE_SAMPLES_PER_FRAME, np.float32)
    job = pipeline.start_chunk(
        pipeline.first_state(conditions, _SEED),
        pipeline.front_end.features(past, silence),
        conditions,
        shown=frames,
        num_steps=num_steps,
    )
    while not job.denoised:
        pipeline.denoise([job])
    latents = codec.join(job.denoising.latents[0], job.start.motion)
    return replace(conditions, reference=codec.rested(conditions.reference, latents))
