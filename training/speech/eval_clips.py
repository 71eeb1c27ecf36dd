"""Make the clips of `eval_set.py`: `python -m visavis.training.speech.eval_clips`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from visavis.training.puppets.controls import CONTROLS
from visavis.training.speech.audio_files import write_flac
from visavis.training.speech.augment import chords, coloured_noise
from visavis.training.speech.clips import whole_frames
from visavis.training.speech.eval_set import EVAL_FOLDER
from visavis.training.speech.motion import clip_controls
from visavis.training.speech.phonemes import SAMPLE_RATE, Utterance, join, silence
from visavis.training.speech.visemes import FPS
from visavis.training.speech.voices import HELD_OUT_VOICES, held_out_voice

TEXTS: Final = {
    "kokoro-kumo": (
        "Maybe we should wait for the bus, it comes every five minutes. "
        "My brother took the umbrella, and I am getting rather wet out here.",
        "What a fabulous view from up here! On a clear morning you can see both rivers, "
        "the old power station, and my favourite bakery.",
        "Four hundred and sixty people voted for the new bridge. "
        "Nobody asked the ferryman, who loves the job that he has.",
        "Please put the blue bowl back where you found it. "
        "The soup was good, wasn't it? I used pepper, thyme and a bay leaf.",
    ),
    "espeak-pt-br+f4": (
        "Bom dia, meus amigos. Hoje vamos abrir a janela e ouvir o barulho da chuva no telhado.",
        "Minha avó fazia um bolo de milho muito bom, e a família inteira ficava em volta da mesa.",
        "O trem para a praia sai às oito e meia. Você pode comprar a passagem perto da farmácia?",
        "Um pouco de música, por favor! Nada combina melhor com uma tarde de novembro.",
    ),
}
_LICENCES: Final = {
    "kokoro-kumo": "audio made with Kokoro-82M (Apache-2.0)",
    "espeak-pt-br+f4": "audio made with espeak-ng; the project's own text",
    "none": "synthetic noise and chords, the project's own",
}


def write_clip(
    folder: Path, name: str, voice: str, text: str, spoken: Utterance, seed: int
) -> None:
    """Write `name.flac` and `name.json`."""
    controls = clip_controls(spoken, np.random.default_rng(seed))
    write_flac(folder / f"{name}.flac", spoken.pcm, SAMPLE_RATE)
    data = {
        "id": name,
        "voice": voice,
        "text": text,
        "licence": _LICENCES[voice],
        "fps": FPS,
        "controls": {
            n: np.round(controls[:, i].astype(float), 3).tolist() for i, n in enumerate(CONTROLS)
        },
        "phonemes": [[p.ipa, round(p.start, 4), round(p.end, 4)] for p in spoken.phonemes],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def build(folder: Path) -> None:
    """Write all clips: four of each held-out voice, and one without a word."""
    folder.mkdir(parents=True, exist_ok=True)
    for voice_index, name in enumerate(HELD_OUT_VOICES):
        rng = np.random.default_rng(100 + voice_index)
        voice = held_out_voice(name, rng)
        for index, text in enumerate(TEXTS[name]):
            spoken = join([silence(0.4), voice.say(text, rng), silence(0.6)])
            clip = f"{name.split('-')[0]}-{index + 1}"
            write_clip(folder, clip, name, text, whole_frames(spoken), 10 * voice_index + index)
    rng = np.random.default_rng(7)
    quiet = silence(10.0)
    pcm = np.zeros(len(quiet.pcm))
    second = SAMPLE_RATE
    pcm[3 * second : 6 * second] = 0.01 * coloured_noise(3 * second, rng)
    pcm[6 * second : 9 * second] = 0.03 * chords(3 * second, rng)
    wordless = Utterance(pcm.astype(np.float32), quiet.phonemes)
    write_clip(folder, "wordless", "none", "", wordless, 99)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description="Make the evaluation clips of held-out voices.")
    parser.add_argument("--out", type=Path, default=EVAL_FOLDER)
    build(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
