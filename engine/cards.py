"""What a GPU does in a second: the assumptions behind a plan, or figures measured on the spot."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path


class RatesError(ValueError):
    """A card that is not known, or a file of rates that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRates:
    """Rates that the pieces of this program's work reach, not peaks.

    TFLOP/s of bfloat16 matrix products, of attention (head size 128) and of the VAE's convolutions,
    and of products in eight bits (None: not to be considered); GB/s of memory, of one GPU's link to
    the others and of pinned host memory to a GPU; seconds that a collective costs beside its bytes;
    GiB of memory. `source` says where they come from.
    """

    products: float
    attention: float
    convolutions: float
    memory: float
    link: float
    host_link: float = 25.0
    products_8bit: float | None = None
    collective_s: float = 20e-6
    vram: float
    source: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "source" or (field.name == "products_8bit" and value is None):
                continue
            if not isinstance(value, (int, float)) or value <= 0:
                raise RatesError(f"{field.name}={value!r}: must be a positive number")


_ASSUMED = "assumed from others' published measurements; not measured here"

CARDS: dict[str, CardRates] = {
    "h100": CardRates(
        products=790,
        attention=650,
        convolutions=400,
        memory=3000,
        link=330,
        host_link=50,
        products_8bit=1500,
        vram=80,
        source=_ASSUMED,
    ),
    "h800": CardRates(
        products=790,
        attention=650,
        convolutions=400,
        memory=3000,
        link=150,
        host_link=50,
        products_8bit=1500,
        vram=80,
        source=_ASSUMED,
    ),
    "h200": CardRates(
        products=790,
        attention=650,
        convolutions=400,
        memory=4300,
        link=330,
        host_link=50,
        products_8bit=1500,
        vram=141,
        source=_ASSUMED,
    ),
    "rtx-5090": CardRates(
        products=205,
        attention=195,
        convolutions=120,
        memory=1600,
        link=20,
        host_link=50,
        products_8bit=400,
        vram=32,
        source=_ASSUMED,
    ),
    "rtx-4090": CardRates(
        products=160,
        attention=155,
        convolutions=90,
        memory=900,
        link=20,
        host_link=25,
        products_8bit=320,
        vram=24,
        source=_ASSUMED,
    ),
}


def card_rates(name: str) -> CardRates:
    """The table's entry.

    Raises:
        RatesError: no such card; the message lists those there are.
    """
    if name not in CARDS:
        raise RatesError(
            f"card={name!r}: must be one of {', '.join(sorted(CARDS))}, or give rates=FILE"
        )
    return CARDS[name]


def read_rates(path: Path) -> CardRates:
    """Measured rates: a JSON object with the fields of `CardRates`, `source` and all.

    Raises:
        RatesError: the file cannot be read, or a field is missing, unknown or not positive.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RatesError(f"{path}: {error}") from error
    if not isinstance(given, dict):
        raise RatesError(f"{path}: holds a {type(given).__name__}, needs a JSON object")
    names = {field.name for field in fields(CardRates)}
    optional = {field.name for field in fields(CardRates) if field.default is not MISSING}
    missing, unknown = names - set(given) - optional, set(given) - names
    if missing or unknown:
        raise RatesError(
            f"{path}: missing {sorted(missing) or 'nothing'}, "
            f"unknown {sorted(unknown) or 'nothing'}"
        )
    return CardRates(**given)


def write_rates(path: Path, rates: CardRates) -> None:
    """Keep measured rates in a file that `read_rates` reads."""
    path.write_text(json.dumps(asdict(rates), indent=2) + "\n", encoding="utf-8")
