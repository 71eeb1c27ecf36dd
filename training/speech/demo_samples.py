"""Make the demo page's recordings: `python -m visavis.training.speech.demo_samples`."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from visavis.training.speech.audio_files import write_flac
from visavis.training.speech.neural import KokoroVoice, hibari_voice

_LICENCE: Final = {
    "hibari": "Apache-2.0, made with hibari-tts 0.2.1",
    "kokoro": "Apache-2.0, made with Kokoro-82M",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One recording: who says what."""

    id: str
    title: str
    speaker: str
    text: str


SAMPLES: Final = (
    Sample(
        "greeting",
        "A greeting",
        "hibari",
        "Hello! I was a photograph a moment ago. Now I can speak with you, in real time, on the "
        "computer in front of you. What would you like to talk about?",
    ),
    Sample(
        "lighthouse",
        "The lighthouse",
        "kokoro",
        "The old lighthouse had been dark for eleven years. One evening, a boy climbed up with a "
        "bicycle lamp, and far out, a ship answered.",
    ),
    Sample(
        "twister",
        "Lips at work",
        "hibari-british",
        "Five bold beavers patched a broken pump before breakfast. Whoever moved the wobbly "
        "whiteboard must have been very brave, or very bored.",
    ),
    Sample(
        "numbers",
        "Timetable",
        "kokoro",
        "Platform four, the seven fifty two to Birmingham. It will stop at Oxford, Banbury and "
        "Warwick. There are only three coaches today; please move along.",
    ),
)


def build(folder: Path) -> None:
    """Write one FLAC a sample and `index.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for number, sample in enumerate(SAMPLES):
        rng = np.random.default_rng(number)
        if sample.speaker == "kokoro":
            pcm, rate = KokoroVoice({"jm_kumo": 1.0}).speak(sample.text), 24_000
        else:
            voice = hibari_voice(british=sample.speaker.endswith("british"))
            pcm, rate = voice.speak(sample.text, rng), 24_000
        pcm = np.float32(0.8 / max(1e-6, float(np.abs(pcm).max()))) * pcm
        write_flac(folder / f"{sample.id}.flac", pcm, rate)
        index.append(
            {
                "id": sample.id,
                "title": sample.title,
                "file": f"{sample.id}.flac",
                "seconds": round(len(pcm) / rate, 2),
                "licence": _LICENCE[sample.speaker.split("-")[0]],
            }
        )
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / "index.json").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description="Make the demo page's recordings.")
    parser.add_argument("--out", type=Path, default=Path("clients/web/public/samples"))
    build(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
