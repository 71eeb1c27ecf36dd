"""espeak-ng through its shared library: any language, with the time of every phoneme.

The library is one per process and not thread-safe, like this wrapper.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from visavis.training.speech.phonemes import PAUSE, Utterance, from_durations

_LIBRARY = "libespeak-ng.so.1"
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 1 | 2
_EVENT_END_OF_LIST = 0
_EVENT_PHONEME = 7
_TEXT_IS_UTF8 = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4


class EspeakError(ValueError):
    """espeak-ng is missing or does not know a voice."""


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True, kw_only=True)
class EspeakSettings:
    """A voice (`en-us+f3`), words a minute, pitch and pitch range (both 0..99)."""

    voice: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50


class Espeak:
    """The process's espeak-ng."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            EspeakError: it is not installed.
        """
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise EspeakError(
                f"{_LIBRARY} cannot be loaded ({error}); install it with "
                "`apt-get install libespeak-ng1 espeak-ng-data`"
            ) from error
        self._sample_rate = int(
            self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IN_IPA)
        )
        self._pieces: list[NDArray[np.int16]] = []
        self._events: list[tuple[str, int]] = []
        self._callback: Callable[..., int] = _CALLBACK(self._receive)  # ctypes must not lose it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, settings: EspeakSettings) -> Utterance:
        """Speak `text`.

        Raises:
            EspeakError: the voice does not exist.
        """
        if self._library.espeak_SetVoiceByName(settings.voice.encode()) != 0:
            raise EspeakError(
                f"voice={settings.voice!r} is unknown to espeak-ng; see `espeak-ng --voices`"
            )
        for parameter, value in (
            (_RATE, settings.rate),
            (_PITCH, settings.pitch),
            (_PITCH_RANGE, settings.pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        self._events.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _TEXT_IS_UTF8, None, None)
        self._library.espeak_Synchronize()
        return self._utterance()

    def _utterance(self) -> Utterance:
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        symbols = [PAUSE, *(symbol for symbol, _ in self._events)]
        starts = [0, *(sample for _, sample in self._events), len(samples)]
        durations = np.maximum(np.diff(np.maximum.accumulate(starts)), 0) / self._sample_rate
        pcm = samples.astype(np.float32) / 32768.0
        return from_durations(pcm, self._sample_rate, symbols, durations.tolist())

    def _receive(self, wave: int | None, count: int, events: "ctypes._Pointer[_Event]") -> int:
        if wave and count > 0:
            block = (ctypes.c_int16 * count).from_address(wave)
            self._pieces.append(np.array(block, np.int16))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                symbol = event.id.string.decode("utf-8", errors="ignore")
                self._events.append((symbol.strip(), event.sample))
            index += 1
        return 0


@cache
def load_espeak() -> Espeak:
    """The one instance that a process may have."""
    return Espeak()
