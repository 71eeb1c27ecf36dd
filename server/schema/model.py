"""The protocol's structs as plain data, for the writers of other languages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import msgspec.inspect as mi
from msgspec import NODEFAULT, Struct

from visavis.server import events as ev

# Literals that have a name of their own in the generated types.
NAMED_LITERALS: dict[str, Any] = {
    "AvatarState": ev.AvatarState,
    "Degradation": ev.Degradation,
    "DropReason": ev.DropReason,
    "ExpiryReason": ev.ExpiryReason,
    "IdlePolicy": ev.IdlePolicy,
    "OnDisconnect": ev.OnDisconnect,
    "ResponseStatus": ev.ResponseStatus,
    "VideoFormat": ev.VideoFormat,
}


def literal_values(name: str) -> tuple[str, ...]:
    """The words of a named literal, in the order of its definition."""
    return tuple(get_args(NAMED_LITERALS[name]))


_NAME_OF_WORDS = {frozenset(literal_values(name)): name for name in NAMED_LITERALS}


@dataclass(frozen=True, slots=True)
class TypeShape:
    """A type without its language.

    `kind`: string, integer, number, boolean, null, words (with `words`), named (with `name`),
    list (with one part) or union (with `parts`).
    """

    kind: str
    name: str = ""
    words: tuple[str, ...] = ()
    parts: tuple[TypeShape, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldShape:
    """One field; `default` is NODEFAULT for one that may be left out without meaning a value."""

    name: str
    type: TypeShape
    required: bool
    default: object
    text: str


@dataclass(frozen=True, slots=True)
class StructShape:
    """One struct; `tag` is the wire name of an event and None for what is inside of one."""

    name: str
    tag: str | None
    text: str
    fields: tuple[FieldShape, ...]


_PLAIN = {
    mi.StrType: "string",
    mi.IntType: "integer",
    mi.FloatType: "number",
    mi.BoolType: "boolean",
    mi.NoneType: "null",
}


def _shape(node: mi.Type) -> TypeShape:
    if isinstance(node, mi.Metadata):
        words = (node.extra_json_schema or {}).get("enum")
        return _words(tuple(words)) if words else _shape(node.type)
    if isinstance(node, mi.LiteralType):
        return _words(tuple(str(value) for value in node.values))
    if isinstance(node, mi.StructType):
        return TypeShape("named", name=node.cls.__name__)
    if isinstance(node, mi.ListType):
        return TypeShape("list", parts=(_shape(node.item_type),))
    if isinstance(node, mi.UnionType):
        return TypeShape("union", parts=tuple(_shape(part) for part in node.types))
    return TypeShape(_PLAIN[type(node)])


def _words(words: tuple[str, ...]) -> TypeShape:
    name = _NAME_OF_WORDS.get(frozenset(words))
    return TypeShape("named", name=name) if name else TypeShape("words", words=words)


def _text(node: mi.Type) -> str:
    if isinstance(node, mi.Metadata) and node.extra_json_schema:
        return str(node.extra_json_schema.get("description", ""))
    if isinstance(node, mi.UnionType):
        return next((text for text in map(_text, node.types) if text), "")
    return ""


def struct_shape(kind: type[Struct]) -> StructShape:
    """The fields and texts of one struct."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    fields = tuple(
        FieldShape(
            field.name,
            _shape(field.type),
            field.required,
            NODEFAULT if field.default_factory is not NODEFAULT else field.default,
            _text(field.type),
        )
        for field in info.fields
    )
    tag = None if info.tag is None else str(info.tag)
    return StructShape(kind.__name__, tag, inspect.getdoc(kind) or "", fields)


def _structs_in(node: mi.Type) -> Iterator[type[Struct]]:
    if isinstance(node, mi.Metadata):
        yield from _structs_in(node.type)
    elif isinstance(node, mi.StructType):
        for field in node.fields:
            yield from _structs_in(field.type)
        yield node.cls
    elif isinstance(node, mi.ListType):
        yield from _structs_in(node.item_type)
    elif isinstance(node, mi.UnionType):
        for part in node.types:
            yield from _structs_in(part)


def inner_shapes() -> list[StructShape]:
    """The structs inside of events, each after those that it uses."""
    events = (*ev.CLIENT_EVENTS, *ev.SERVER_EVENTS)
    found: dict[type[Struct], None] = {}
    for kind in events:
        for inner in _structs_in(mi.type_info(kind)):
            if inner not in events:
                found.setdefault(inner)
    return [struct_shape(kind) for kind in found]


def client_shapes() -> list[StructShape]:
    """What a client may say."""
    return [struct_shape(kind) for kind in ev.CLIENT_EVENTS]


def server_shapes() -> list[StructShape]:
    """What the server says."""
    return [struct_shape(kind) for kind in ev.SERVER_EVENTS]
