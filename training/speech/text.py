"""Sentences to speak: random words in plausible shapes, in many languages.

The words come from Debian's word lists (`/usr/share/dict`) where there is one and are made of
typical syllables elsewhere. Sense does not matter: the lips need every sound in every
neighbourhood, and commas, questions and pauses where people put them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

DICTIONARIES: Final = Path("/usr/share/dict")
_WORDS_KEPT = 20_000


class WordListError(ValueError):
    """A word list is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Where words come from: a word list, or onsets, nuclei and codas of made-up words."""

    function_words: str
    word_list: str = ""
    package: str = ""
    onsets: str = ""
    nuclei: str = ""
    codas: str = ""


LANGUAGES: Final[dict[str, Language]] = {
    "en": Language(
        word_list="american-english",
        package="wamerican",
        function_words="the a of to and in that it was for on with he she you we they my your this "
        "but from by not have what so who would about up if out when more people time me because",
    ),
    "de": Language(
        word_list="ngerman",
        package="wngerman",
        function_words="der die das und in zu den mit sich auf für ist im dem nicht ein eine als "
        "auch es an werden aus er hat dass sie nach wird bei aber wir über mein wo warum",
    ),
    "fr": Language(
        word_list="french",
        package="wfrench",
        function_words="le la les de des un une et à il elle en que qui dans pour ce pas nous vous "
        "sur se avec mais où beaucoup peu bon bien tout mon votre leur puis",
    ),
    "es": Language(
        word_list="spanish",
        package="wspanish",
        function_words="el la los de que y en un una por con no para es se lo como más pero sus le "
        "ya este sí porque muy sobre también me hasta hay donde mi vamos puede",
    ),
    "it": Language(
        word_list="italian",
        package="witalian",
        function_words="il lo la di che e un una in per con non sono da ma come più anche se mi ci "
        "questo bene dove perché molto tutto poi quando prima mai buono",
    ),
    "pt": Language(
        word_list="portuguese",
        package="wportuguese",
        function_words="o a de que e do da em um uma para com não por mais mas foi ao ele se na "
        "como muito bom pode você meu também pouco quando",
    ),
    "nl": Language(
        word_list="dutch",
        package="wdutch",
        function_words="de het een van en in is dat op te met voor niet zijn maar er om hij we ook "
        "bij uit nog wel mijn waar waarom veel over",
    ),
    "pl": Language(
        word_list="polish",
        package="wpolish",
        function_words="i w na z do się nie to jest że o jak po ale za od przez co dla czy już był "
        "może tak tylko bardzo mój pani wszystko",
    ),
    "sv": Language(
        function_words="och i att det som en på är av för med till den har de inte om ett men var "
        "vi jag så mycket bra hur",
        onsets="b d f g h j k l m n p r s t v sk st tr br pl sj kv bl spr",
        nuclei="a e i o u y å ä ö aa ee ö",
        codas="- - n r t s l m ng st ll nd mp rt",
    ),
    "tr": Language(
        function_words="ve bir bu da de için ile çok ne gibi daha ben sen biz ama var yok mı evet",
        onsets="b c ç d f g h k l m n p r s ş t v y z",
        nuclei="a e ı i o ö u ü",
        codas="- - - n r k l m ş t z p",
    ),
    "fi": Language(
        function_words="ja on ei se että hän oli kun niin mutta myös minä mitä hyvä vain nyt",
        onsets="h j k l m n p r s t v - pr kr",
        nuclei="a e i o u y ä ö aa ii uu ää ai ei uo yö ie",
        codas="- - - n s t l r kk pp mp",
    ),
    "cs": Language(
        function_words="a se v na je že to s z do o ale jak tak by pro za od co už jsem může velmi",
        onsets="b c č d f h j k l m n p r ř s š t v z ž bl pr st mn",
        nuclei="a e i o u y á í é ou ů",
        codas="- - - n k t l m ch š v",
    ),
    "ru": Language(
        function_words="и в не на я что он с это по но как мы за вы так от бы было мой вот уже "
        "меня можно очень потому",
        onsets="б в г д ж з к л м н п р с т ф х ц ч ш пр бл ст мн",
        nuclei="а е и о у ы я ю ё э",
        codas="- - - н м т л р ть сь й б п",
    ),
    "el": Language(
        function_words="και το να η που με για στο δεν τα από θα μου αυτό είναι ένα πολύ μπορεί",
        onsets="β γ δ ζ θ κ λ μ ν π ρ σ τ φ χ μπ ντ στ πρ",
        nuclei="α ε ι ο ου υ η ω αι",
        codas="- - - ς ν ρ μ",
    ),
    "hi": Language(
        function_words="और का की के में है यह वह से को पर एक हम मैं आप भी बहुत तो क्या नहीं",
        onsets="ब प म भ फ व क ग च ज ट ड त द न र ल श स ह",
        nuclei="ा ि ी ु ू े ो ै ौ -",
        codas="- - - न म र ल ब प क त",
    ),
}


class SentenceSource:
    """Endless sentences of one language, the same ones for the same generator state."""

    def __init__(self, language: str) -> None:
        """Read the language's words.

        Raises:
            ValueError: `language` is not in `LANGUAGES`.
            WordListError: its word list is not installed.
        """
        if language not in LANGUAGES:
            raise ValueError(f"language={language!r} is unknown; choose from {sorted(LANGUAGES)}")
        self._language = LANGUAGES[language]
        self._function_words = self._language.function_words.split()
        self._words = _read_words(self._language) if self._language.word_list else []

    def sentence(self, rng: np.random.Generator) -> str:
        """3 to 18 words with commas inside, now and then a number, and an end mark."""
        words: list[str] = []
        target = int(rng.integers(3, 19))
        while len(words) < target:
            if rng.random() < 0.4:
                words.append(str(rng.choice(self._function_words)))
            words.append(self._word(rng))
            if rng.random() < 0.03:
                words.append(str(_number(rng)))
            if rng.random() < 0.12 and len(words) < target - 1:
                words[-1] += str(rng.choice([",", ",", ",", ";", ":"]))
        end = str(rng.choice([".", ".", ".", ".", "?", "!"]))
        text = " ".join(words)
        return text[0].upper() + text[1:] + end

    def _word(self, rng: np.random.Generator) -> str:
        if self._words:
            return self._words[int(rng.integers(len(self._words)))]
        language = self._language
        count = int(rng.choice([1, 2, 2, 2, 3, 3, 4]))
        parts = []
        for _ in range(count):
            parts.append(str(rng.choice(language.onsets.split())))
            parts.append(str(rng.choice(language.nuclei.split())))
        parts.append(str(rng.choice(language.codas.split())))
        return "".join(parts).replace("-", "")


def _number(rng: np.random.Generator) -> int:
    return int(10 ** rng.uniform(0.0, 3.6))


def _read_words(language: Language) -> list[str]:
    path = DICTIONARIES / language.word_list
    if not path.is_file():
        raise WordListError(
            f"word list {path} is missing; install it with `apt-get install {language.package}`"
        )
    words = [
        word
        for word in path.read_text(encoding="utf-8", errors="ignore").split()
        if word.isalpha() and 2 <= len(word) <= 13 and not word.isupper()
    ]
    step = max(1, len(words) // _WORDS_KEPT)
    return words[::step]
