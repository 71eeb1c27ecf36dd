"""The protocol as one self-contained Python module of frozen dataclasses, for the client."""

from __future__ import annotations

import textwrap
from functools import cache

from msgspec import NODEFAULT, UNSET

from visavis.server import protocol
from visavis.server.errors import CLOSE_CODES, ERRORS, ErrorType
from visavis.server.schema import model
from visavis.server.schema.model import FieldShape, StructShape, TypeShape

WIDTH = 100
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}

_HEAD = '''"""Types of the wire protocol. Made by scripts/generate_protocol.py; do not edit.

Server events are read with `server_event`, which ignores fields and types that it does not know.
Client events are written with `to_json`, which leaves out what is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag, StrEnum
from typing import Any, ClassVar, Literal, Self

Json = dict[str, Any]
'''

_BASES = '''

@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is inside of events. `raw` is the message that it was read from."""

    INNER: ClassVar[Mapping[str, type[Body]]] = {}

    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        """Take the known fields. Raises TypeError when one without a default is missing."""
        known = {item.name for item in fields(cls)} - {"raw"}
        values = {name: value for name, value in message.items() if name in known}
        for name, kind in cls.INNER.items():
            if isinstance(values.get(name), Mapping):
                values[name] = kind.from_json(values[name])
        return cls(**values, raw=dict(message))

    def to_json(self) -> Json:
        """The message, without what is None."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values.pop("raw")
        return {
            name: value.to_json() if isinstance(value, Body) else value
            for name, value in values.items()
            if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Body):
    """Either side's event."""

    TYPE: ClassVar[str] = ""

    event_id: str | None = None

    def to_json(self) -> Json:
        """The message, without what is None."""
        # Dataclasses with slots are made anew, so that super() without arguments would not do.
        return {"type": self.TYPE, **Body.to_json(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent(Event):
    """What a client may say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent(Event):
    """What the server says; an event of a later version is one without a class of its own."""

    source_event_id: str | None = None

    @property
    def type(self) -> str:
        """The wire name."""
        return self.TYPE or str(self.raw.get("type", ""))
'''

_TAIL = '''

def server_event(message: Mapping[str, Any]) -> ServerEvent:
    """The event in a decoded text message; a plain ServerEvent when its type is not known.

    Raises TypeError when a field without a default is missing.
    """
    return SERVER_EVENTS.get(str(message.get("type")), ServerEvent).from_json(message)
'''


def python_types() -> str:
    """The text of the generated module, as `ruff format` leaves it."""
    inner, client, server = model.inner_shapes(), model.client_shapes(), model.server_shapes()
    parts = [_HEAD + _constants()]
    parts += [_alias(name) for name in sorted(model.NAMED_LITERALS)]
    parts.append(_BASES)
    parts += [_dataclass(shape, "Body") for shape in inner]
    parts += [_dataclass(shape, "ClientEvent") for shape in client]
    parts += [_dataclass(shape, "ServerEvent") for shape in server]
    parts.append(_table("CLIENT_EVENTS", "ClientEvent", client))
    parts.append(_table("SERVER_EVENTS", "ServerEvent", server) + _TAIL)
    return "\n".join(parts)


def _constants() -> str:
    lines = [
        f'SUBPROTOCOL = "{protocol.SUBPROTOCOL}"',
        f'TOKEN_SUBPROTOCOL_PREFIX = "{protocol.TOKEN_SUBPROTOCOL_PREFIX}"',
        f'ENDPOINT = "{protocol.ENDPOINT}"',
        f"PROTOCOL_VERSION = {protocol.PROTOCOL_VERSION}",
        f"FRAME_US = {protocol.FRAME_US:_}",
        "# For the module struct: " + ", ".join(field.name for field in protocol.HEADER_FIELDS),
        f'HEADER_FORMAT = "{protocol.HEADER.format}"',
        f"HEADER_BYTES = {protocol.HEADER_LEN}",
        "",
        "",
        "class Kind(IntEnum):",
        '    """What a binary message carries; receivers skip kinds that they do not know."""',
        "",
    ]
    for kind, text in protocol.KIND_MEANINGS.items():
        lines += [f"    # {text}", f"    {kind.name} = {int(kind)}"]
    lines += ["", "", "class Flag(IntFlag):", '    """Bits of a media message."""', ""]
    for flag, text in protocol.FLAG_MEANINGS.items():
        lines += [f"    # {text}", f"    {flag.name} = {int(flag)}"]
    lines += ["", "", "class ErrorType(StrEnum):", '    """Whose fault, and what kind."""', ""]
    lines += [f'    {kind.name} = "{kind}"' for kind in ErrorType]
    lines += ["", "", "class ErrorCode(StrEnum):", '    """What exactly went wrong."""', ""]
    for code, spec in ERRORS.items():
        lines += [f"    # {spec.meaning}", f'    {code.name} = "{code}"']
    lines += ["", "", "# The close code that follows an error, for those that end the session."]
    lines.append("CLOSE_OF_ERROR: dict[ErrorCode, int] = {")
    for code, spec in ERRORS.items():
        if spec.close is not None:
            lines.append(f"    ErrorCode.{code.name}: {spec.close},")
    lines += ["}", "# Why a socket was closed, and what a client does about it."]
    lines.append("CLOSE_CODES: dict[int, tuple[str, str]] = {")
    for number, close in CLOSE_CODES.items():
        lines.append(f'    {number}: ("{close.meaning}", "{close.client}"),')
    return "\n".join([*lines, "}", ""])


def _alias(name: str) -> str:
    words = ", ".join(f'"{word}"' for word in model.literal_values(name))
    return f"{name} = Literal[{words}]"


def _docstring(text: str) -> list[str]:
    one = f'    """{text}"""'
    if len(one) <= WIDTH and "\n" not in text:
        return [one]
    first, _, rest = text.partition("\n\n")
    lines = textwrap.wrap(" ".join(first.split()), WIDTH - 8)
    for paragraph in filter(None, rest.split("\n\n")):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), WIDTH - 8)]
    body = "\n".join(f"    {line}".rstrip() for line in lines).lstrip()
    return [*f'    """{body}'.split("\n"), '    """']


def _dataclass(shape: StructShape, base: str) -> str:
    lines = ["", "@dataclass(frozen=True, slots=True, kw_only=True)"]
    lines += [f"class {shape.name}({base}):", *_docstring(shape.text or shape.name)]
    inner = {f.name: f.type.name for f in shape.fields if f.type.name in _structs()}
    own = [f for f in shape.fields if f.name not in ("event_id", "source_event_id")]
    for field in shape.fields:
        for part in field.type.parts:
            if part.kind == "named" and part.name in _structs():
                inner[field.name] = part.name
    if shape.tag is not None:
        lines += ["", f'    TYPE: ClassVar[str] = "{shape.tag}"']
    if inner:
        lines += [*([""] if shape.tag is None else []), *_inner_table(inner)]
    if own:
        lines.append("")
    for field in own:
        lines += _field(field)
    return "\n".join([*lines, ""])


def _inner_table(inner: dict[str, str]) -> list[str]:
    head = "    INNER: ClassVar[Mapping[str, type[Body]]] = {"
    one = head + ", ".join(f'"{name}": {kind}' for name, kind in inner.items()) + "}"
    if len(one) <= WIDTH:
        return [one]
    return [head, *[f'        "{name}": {kind},' for name, kind in inner.items()], "    }"]


@cache
def _structs() -> frozenset[str]:
    return frozenset(shape.name for shape in model.inner_shapes())


def _field(field: FieldShape) -> list[str]:
    text = [f"    # {line}" for line in textwrap.wrap(field.text, WIDTH - 6)]
    kind = _type(field.type)
    if field.required:
        return [*text, f"    {field.name}: {kind}"]
    if field.default is NODEFAULT or field.default is UNSET:
        return [*text, f"    {field.name}: {kind} | None = None"]
    default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
    return [*text, f"    {field.name}: {kind} = {default}"]


def _type(shape: TypeShape) -> str:
    match shape.kind:
        case "named":
            return shape.name
        case "words":
            return "Literal[" + ", ".join(f'"{word}"' for word in shape.words) + "]"
        case "list":
            return f"list[{_type(shape.parts[0])}]"
        case "union":
            return " | ".join(dict.fromkeys(_type(part) for part in shape.parts))
    return _PLAIN[shape.kind]


def _table(name: str, base: str, shapes: list[StructShape]) -> str:
    rows = "\n".join(f"        {shape.name}," for shape in shapes)
    return (
        f"\n{name}: dict[str, type[{base}]] = {{\n    kind.TYPE: kind\n    for kind in (\n"
        f"{rows}\n    )\n}}\n"
    )
