"""A session's state as bytes, so that another process can go on with it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from visavis.engine.history import HistoryState, Moment
from visavis.engine.pipeline import ChunkState
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.session import SessionState
from visavis.engine.utterance import UtteranceState

_HEADER = "header"
_COUNTS = ("first_index", "received", "next_frame", "committed")


class SessionFileError(ValueError):
    """Bytes that are no session state, or a state that is too large to be passed on."""


def pack_session(state: SessionState, *, max_bytes: int) -> bytes:
    """A safetensors file of the state.

    As much of the history goes along as fits into half of `max_bytes`, but never less than the
    frames that the next chunk goes on from: a later rewind reaches less far back then.

    Raises:
        SessionFileError: even so it is larger than `max_bytes`.
    """
    for budget in (max_bytes // 2, 0):
        data = _packed(state, _shortened(state.history, budget))
        if len(data) <= max_bytes:
            return data
    raise SessionFileError(
        f"the session's state has {len(data):,} bytes, {max_bytes:,} at most; allow more"
    )


def _packed(state: SessionState, history: HistoryState) -> bytes:
    tensors: dict[str, Tensor] = {
        "motion": state.chunk.motion.cpu().contiguous(),
        "random": state.chunk.random.cpu(),
        "before": torch.from_numpy(history.before.copy()),
    }
    if state.chunk.poses:
        tensors["poses"] = torch.stack([pose.cpu() for pose in state.chunk.poses])
    if history.moments:
        tensors["moment_poses"] = torch.stack([m.pose.cpu() for m in history.moments])
        heard = np.stack([m.heard for m in history.moments])
        tensors["moment_heard"] = torch.from_numpy(heard)
    for number, utterance in enumerate(state.utterances):
        pcm = np.concatenate([np.empty(0, np.int16), *utterance.pieces])
        tensors[f"pcm{number}"] = torch.from_numpy(pcm)
    header = {
        "end": history.end,
        "settled": state.settled,
        "utterances": [{k: getattr(u, k) for k in _COUNTS} for u in state.utterances],
    }
    text = json.dumps(header).encode()
    tensors[_HEADER] = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
    return bytes(save(tensors))


def unpack_session(data: bytes, *, device: torch.device) -> SessionState:
    """The state that `pack_session` wrote, its tensors on `device`.

    A random state of another kind of device cannot be used; a new one is drawn from it.

    Raises:
        SessionFileError: these are not such bytes.
    """
    try:
        tensors = load(data)
        header = json.loads(tensors[_HEADER].numpy().tobytes())
        return _state(tensors, header, device)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SessionFileError(f"not a session's state: {error}") from error


def _state(
    tensors: dict[str, Tensor], header: dict[str, Any], device: torch.device
) -> SessionState:
    poses = [pose.to(device) for pose in tensors.get("moment_poses", ())]
    heard: Any = _array(tensors["moment_heard"]) if poses else []
    moments = tuple(Moment(pose, sound) for pose, sound in zip(poses, heard, strict=True))
    utterances = []
    for number, counts in enumerate(header["utterances"]):
        pcm = _array(tensors[f"pcm{number}"])
        utterances.append(UtteranceState((pcm,) if len(pcm) else (), **counts))
    chunk = ChunkState(
        tensors["motion"].to(device),
        _random(tensors["random"], device),
        tuple(pose.to(device) for pose in tensors.get("poses", ())),
    )
    history = HistoryState(_array(tensors["before"]), moments, int(header["end"]))
    return SessionState(chunk, history, bool(header["settled"]), tuple(utterances))


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy()
    return array


def _random(saved: Tensor, device: torch.device) -> Tensor:
    generator = torch.Generator(device)
    if saved.shape == generator.get_state().shape:
        return saved
    seed = int.from_bytes(bytes(saved[:8].tolist()), "little") >> 1
    return generator.manual_seed(seed).get_state()


def _shortened(history: HistoryState, max_bytes: int) -> HistoryState:
    """Without its oldest moments, whose sound goes where older sound is."""
    if not history.moments:
        return history
    first = history.moments[-1]
    each = first.pose.numel() * first.pose.element_size() + first.heard.nbytes
    keep = max(MOTION_FRAMES, max_bytes // each)
    dropped, kept = history.moments[:-keep], history.moments[-keep:]
    length = len(history.before)
    sound = np.concatenate([history.before, *(moment.heard for moment in dropped)])
    return HistoryState(sound[len(sound) - length :], kept, history.end)
