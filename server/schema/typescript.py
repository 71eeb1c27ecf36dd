"""The protocol as TypeScript types, in the layout that the web client's formatter keeps."""

from __future__ import annotations

import textwrap

from visavis.server import protocol
from visavis.server.errors import CLOSE_CODES, ErrorCode, ErrorType
from visavis.server.schema import model
from visavis.server.schema.model import StructShape, TypeShape

WIDTH = 100
_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}


def typescript() -> str:
    """The text of the generated module."""
    inner, client, server = model.inner_shapes(), model.client_shapes(), model.server_shapes()
    parts = [
        "// Made by scripts/generate_protocol.py from the server's definition. Do not edit.",
        _constants(),
        *[_alias(name, model.literal_values(name)) for name in sorted(model.NAMED_LITERALS)],
        _alias("ErrorTypeName", tuple(ErrorType)),
        _alias("ErrorCodeName", tuple(ErrorCode)),
        *[_interface(shape) for shape in (*inner, *client, *server)],
        _comment("What a client may say.")
        + _union("ClientEvent", [shape.name for shape in client]),
        _comment("What the server says; types of later versions come, too, and are ignored.")
        + _union("ServerEvent", [shape.name for shape in server]),
    ]
    return "\n\n".join(parts) + "\n"


def _constants() -> str:
    lines = [
        f'export const SUBPROTOCOL = "{protocol.SUBPROTOCOL}";',
        f'export const TOKEN_SUBPROTOCOL_PREFIX = "{protocol.TOKEN_SUBPROTOCOL_PREFIX}";',
        f'export const ENDPOINT = "{protocol.ENDPOINT}";',
        f"export const PROTOCOL_VERSION = {protocol.PROTOCOL_VERSION};",
        _comment("Length of the binary header in bytes; little endian.")
        + f"export const HEADER_BYTES = {protocol.HEADER_LEN};",
        _comment("Where each field of the binary header begins.")
        + "export const HEADER_OFFSETS = {",
    ]
    offset = 0
    for field in protocol.HEADER_FIELDS:
        lines.append(f"  /** {field.wire_type}: {field.meaning} */")
        lines.append(f"  {field.name}: {offset},")
        offset += field.size
    lines += ["} as const;", "", "/** What a binary message carries. */", "export const Kind = {"]
    for kind, text in protocol.KIND_MEANINGS.items():
        lines += [f"  /** {text} */", f"  {_pascal(kind.name)}: {int(kind)},"]
    lines += ["} as const;", "", "/** Bits of a media message. */", "export const Flag = {"]
    for flag, text in protocol.FLAG_MEANINGS.items():
        lines += [f"  /** {text} */", f"  {_pascal(str(flag.name))}: {int(flag)},"]
    lines += [
        "} as const;",
        "",
        _comment("Why a socket was closed, and what a client does about it.")
        + "export const CLOSE_CODES: Readonly<Record<number, { meaning: string; client: string }>> "
        "= {",
    ]
    for code, spec in CLOSE_CODES.items():
        lines.append(f'  {code}: {{ meaning: "{spec.meaning}", client: "{spec.client}" }},')
    return "\n".join([*lines, "};"])


def _pascal(name: str) -> str:
    special = {"FMP4": "Fmp4"}
    return special.get(name, "".join(part.capitalize() for part in name.split("_")))


def _comment(text: str, indent: str = "") -> str:
    if not text:
        return ""
    one = f"{indent}/** {' '.join(text.split())} */"
    if len(one) <= WIDTH and "\n\n" not in text:
        return one + "\n"
    lines: list[str] = []
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            lines.append("")
        lines += textwrap.wrap(" ".join(paragraph.split()), WIDTH - len(indent) - 3)
    body = "\n".join(f"{indent} * {line}".rstrip() for line in lines)
    return f"{indent}/**\n{body}\n{indent} */\n"


def _alias(name: str, words: tuple[str, ...]) -> str:
    return _union(name, [f'"{word}"' for word in words])


def _union(name: str, parts: list[str]) -> str:
    one = f"export type {name} = {' | '.join(parts)};"
    if len(one) <= WIDTH:
        return one
    return f"export type {name} =\n" + "\n".join(f"  | {part}" for part in parts) + ";"


def _interface(shape: StructShape) -> str:
    lines = [_comment(shape.text) + f"export interface {shape.name} {{"]
    if shape.tag is not None:
        lines.append(f'  type: "{shape.tag}";')
    for field in shape.fields:
        mark = "" if field.required or field.name == "event_id" and _is_server(shape) else "?"
        lines.append(_comment(field.text, "  ") + f"  {field.name}{mark}: {_type(field.type)};")
    return "\n".join([*lines, "}"])


def _is_server(shape: StructShape) -> bool:
    return any(field.name == "source_event_id" for field in shape.fields)


def _type(shape: TypeShape) -> str:
    match shape.kind:
        case "named":
            return shape.name
        case "words":
            return " | ".join(f'"{word}"' for word in shape.words)
        case "null":
            return "null"
        case "list":
            return f"{_type(shape.parts[0])}[]"
        case "union":
            return " | ".join(dict.fromkeys(_type(part) for part in shape.parts))
    return _PLAIN[shape.kind]
