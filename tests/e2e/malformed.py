"""A corpus of messages that no client may send: made by hypothesis, the same in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from visavis_client import wire
from visavis_client.errors import WireError
from visavis_client.protocol import Kind

SEEDS = 500
# A field of each event that cannot be a list.
FIELDS = {
    "session.update": "session",
    "session.resume": "handle",
    "input_audio_buffer.append": "audio",
    "input_audio_buffer.commit": "response_id",
    "response.cancel": "fade_ms",
    "avatar.set_state": "state",
    "playback.update": "pts_us",
    "session.close": "drain",
}
_u32 = st.integers(0, 2**32 - 1)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_binary = st.one_of(
    st.binary(max_size=31),  # shorter than a header
    st.tuples(  # lengths that do not add up
        st.integers(0, 255), st.integers(0, 255), st.integers(0, 65_535), _u32, _u32, _u32, _u32
    ).map(
        lambda v: (
            bytes((v[0], v[1]))
            + v[2].to_bytes(2, "little")
            + b"".join(x.to_bytes(4, "little") for x in v[3:])
            + bytes(12)
        )
    ),
    st.binary(min_size=1, max_size=63).map(  # half a sample at the end
        lambda pcm: wire.audio_message(pcm if len(pcm) % 2 else pcm + b"!", 0)
    ),
)
_text = st.one_of(
    st.text(max_size=60),
    _json.map(json.dumps),
    st.integers(1, 2_000).map(lambda depth: "[" * depth),
    st.tuples(st.sampled_from(sorted(FIELDS)), _json).map(
        lambda v: json.dumps({"type": v[0], FIELDS[v[0]]: [v[1]]})
    ),
)


def _refused(message: str | bytes) -> bool:
    """Whether a server has to answer with an error; others are ignored, or would be right."""
    if isinstance(message, bytes):
        try:
            decoded = wire.Message.decode(message)
        except WireError:
            return True
        return decoded.kind == Kind.AUDIO_IN and len(decoded.audio) % 2 == 1
    try:
        body = json.loads(message)
    except (ValueError, RecursionError):
        return True
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        return True
    return isinstance(body.get(FIELDS.get(body["type"], "")), list)


def _seeds() -> list[str | bytes]:
    found: list[str | bytes] = []

    @settings(
        max_examples=SEEDS,
        database=None,
        derandomize=True,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(_binary, _text))
    def gather(message: str | bytes) -> None:
        found.append(message)

    gather()
    return found


def malformed(count: int) -> Iterator[str | bytes]:
    """`count` messages: the seeds, most of them with ever new damage.

    Hypothesis has done its part when this returns, so that it does not run beside a server.
    """
    return _from_seeds(_seeds(), count)


def _from_seeds(seeds: list[str | bytes], count: int) -> Iterator[str | bytes]:
    generator = random.Random(1)
    made = 0
    while made < count:
        message = generator.choice(seeds)
        if generator.random() < 0.7:
            message = _damaged(message, generator)
        if not _refused(message):
            message = b"\x01" + generator.randbytes(generator.randrange(30))
        yield message
        made += 1


def _damaged(message: str | bytes, generator: random.Random) -> str | bytes:
    if not message:
        return message
    place = generator.randrange(len(message))
    if isinstance(message, str):
        if generator.random() < 0.5:
            return message[:place]
        return message[:place] + generator.choice('{}[]",:\\x0') + message[place:]
    data = bytearray(message)
    if generator.random() < 0.3:
        return bytes(data[:place])
    data[place] ^= 1 << generator.randrange(8)
    return bytes(data)
