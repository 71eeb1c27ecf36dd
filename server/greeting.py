"""The first word of the server: what counts for a session."""

from __future__ import annotations

from importlib.metadata import version

from visavis.engine.plan import CHUNK_LENGTHS, new_frames
from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import FPS
from visavis.server.resume import ResumeDesk

CHUNK_FRAMES = new_frames(CHUNK_LENGTHS[-1])


def greeting(
    session_id: str,
    config: ServerConfig,
    admission: Admission,
    desk: ResumeDesk,
    *,
    output: ev.OutputOffer,
    features: ev.Features,
    max_session_s: float,
) -> ev.SessionCreated:
    """session.created; max_session_s may be less than the server's, by the caller's token."""
    return ev.SessionCreated(
        session_id=session_id,
        server_version=version("visavis"),
        engine="visavis",
        model=config.model,
        limits=ev.Limits(
            max_message_bytes=config.max_message_bytes,
            max_buffered_input_ms=config.max_buffered_input_ms,
            max_session_s=max_session_s,
            idle_timeout_s=config.idle_timeout_s,
            max_inflight_ms=config.max_inflight_ms,
            slow_client_s=config.slow_client_s,
            max_input_rate=config.max_input_rate,
        ),
        timing=ev.Timing(
            fps=FPS,
            chunk_frames=CHUNK_FRAMES,
            chunk_ms=CHUNK_FRAMES * 1000 / FPS,
            first_frame_ms_p50=admission.first_frame_ms_p50,
        ),
        output=output,
        features=features,
        resume=desk.offer(session_id) if desk.ttl_s else None,
    )
