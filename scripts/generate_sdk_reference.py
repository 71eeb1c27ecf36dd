"""Write docs/sdk-reference.md from the docstrings of the Python client; --check only compares.

Exit code 1 when the committed page is not what the docstrings say.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import visavis_client

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "sdk-reference.md"
HEAD = """# Reference of the Python client

Everything that `visavis_client` exports, from its docstrings (`make reference`). How to use it
stands in its [README](../clients/python/README.md), how it is made in [sdk.md](sdk.md). The
server's events, which `session.events()` gives, are those of [protocol.md](protocol.md) by the same
names; `visavis_client.server_errors` has a class for each error code.
"""


class Bare(str):
    """An annotation, which is text already, without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, value: Any) -> str:
    """As it is called; annotations as they are written, without `self`."""
    shown = inspect.signature(value)
    kept = [
        parameter.replace(annotation=Bare(parameter.annotation))
        for parameter in shown.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    text = (
        f"{name}{shown.replace(parameters=kept, return_annotation=Bare(shown.return_annotation))}"
    )
    # Defaults without a readable form: enumerations by their names, what is made anew as "...".
    text = re.sub(r"<factory>|<(?:built-in|function|bound)[^>]*>", "...", text)
    return re.sub(r"<([\w.]+): [^>]+>", r"\1", text)


def members(kind: type) -> Iterator[tuple[str, str, Any]]:
    """(name, what it is, the thing) of the public members with a docstring, in their order."""
    seen: set[str] = set()
    for owner in kind.__mro__:
        if not owner.__module__.startswith("visavis_client"):
            continue
        for name, raw in vars(owner).items():
            value = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw
            public = not name.startswith("_")
            if name in seen or not public or not getattr(value, "__doc__", None):
                continue
            seen.add(name)
            if isinstance(value, property):
                yield name, "property", value
            elif inspect.isfunction(value):
                asynchronous = inspect.iscoroutinefunction(value)
                yield name, "async" if asynchronous else "method", value


def section(name: str, value: Any) -> str:
    """One exported name."""
    lines = [f"## {name}", ""]
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return "\n".join([*lines, f"`{value}`".replace("typing.", ""), ""])
    plain = inspect.isclass(value) and (
        issubclass(value, BaseException | enum.Enum | dict) and "__init__" not in vars(value)
    )
    if plain:
        lines += [f"`{name}({value.__mro__[1].__name__})`", ""]
    else:
        prefix = "async " if inspect.iscoroutinefunction(value) else ""
        lines += ["```python", f"{prefix}{signature(name, value)}", "```", ""]
    lines += [inspect.getdoc(value) or "", ""]
    if not inspect.isclass(value):
        return "\n".join(lines)
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not f.name.startswith("_")]
        lines += [f"- `{f.name}`: `{f.type}`" for f in fields] + ([""] if fields else [])
    for member, what, thing in members(value):
        text = inspect.getdoc(thing) or ""
        if what == "property":
            lines += [f"#### `{member}`", "", text, ""]
        else:
            prefix = "await " if what == "async" else ""
            lines += [f"#### `{prefix}{signature(member, thing)}`", "", text, ""]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [HEAD, *(section(n, getattr(visavis_client, n)) for n in visavis_client.__all__)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    if PAGE.is_file() and PAGE.read_text() == page():
        return 0
    if not check:
        PAGE.write_text(page())
    what = "is stale: run `make reference`" if check else "written"
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} {what}\n")
    return 1 if check else 0


if __name__ == "__main__":
    raise SystemExit(main())
