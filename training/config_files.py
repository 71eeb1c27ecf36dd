"""Recipes as files: TOML in, a frozen dataclass out, and errors that name the field.

A file may leave fields out (the dataclass has its defaults), but those in `training/configs` state
every one, so that a run's numbers can be read in one place.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclopts import Parameter

CONFIGS: Final = Path(__file__).resolve().parent / "configs"
Recipe = TypeVar("Recipe")
Overrides = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]
"""A command's option `--set field=value`, given any number of times."""


class ConfigFileError(ValueError):
    """A recipe that cannot be used: names the file, the field, its value and the remedy."""


def find_config(source: str) -> Path:
    """A file's path, or that of the shipped recipe of this name.

    Raises:
        ConfigFileError: there is neither.
    """
    for path in (Path(source), CONFIGS / f"{source}.toml"):
        if path.is_file():
            return path
    raise ConfigFileError(
        f"config={source}: no such file, nor one of the shipped recipes "
        f"({', '.join(shipped_configs())})"
    )


def shipped_configs() -> list[str]:
    """Names of the recipes in `training/configs`."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def load_recipe(
    kind: type[Recipe],
    source: str,
    overrides: Sequence[str] = (),
    *,
    table: str | None = None,
    tables: Sequence[str] = (),
) -> Recipe:
    """Read a recipe and check it.

    Args:
        kind: the recipe's dataclass.
        source: a path, or a shipped recipe's name.
        overrides: "field=value" each, or "table.field=value"; the value as TOML has it, but that a
            word needs no quotes.
        table: the file's table that is meant; None: its top level.
        tables: those that the file may have beside its top level; they are read one by one.

    Raises:
        ConfigFileError: no such file, not TOML, an unknown field, a value of the wrong type, or
            one that the recipe refuses.
    """
    path = find_config(source)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"{path}: not TOML ({error})") from error
    where = str(path) if table is None else f"{path} [{table}]"
    given, changed = content, _by_table(overrides)
    if table is None:
        found = [name for name, value in content.items() if isinstance(value, dict)]
        unknown = sorted(({*found, *changed} - {None, *tables}), key=str)
        if unknown:
            known = ", ".join(f"[{name}]" for name in sorted(tables)) or "none"
            raise ConfigFileError(
                f"{path if unknown[0] in found else '--set'}: {kind.__name__} has no table "
                f"[{unknown[0]}]; there is {known}"
            )
        given = {name: value for name, value in content.items() if name not in found}
    else:
        given = content.get(table, {})
    values = _checked(kind, given, where)
    values |= _checked(kind, changed.get(table, {}), "--set")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigFileError(f"{where}: {error}") from error


def recipe_or_exit(
    kind: type[Recipe],
    source: str,
    overrides: Sequence[str] = (),
    *,
    table: str | None = None,
    tables: Sequence[str] = (),
) -> Recipe:
    """`load_recipe` for a command: an error ends the program with its message."""
    try:
        return load_recipe(kind, source, overrides, table=table, tables=tables)
    except ConfigFileError as error:
        raise SystemExit(str(error)) from None


def missing_fields(kind: type[Any], path: Path, *, table: str | None = None) -> list[str]:
    """Fields of the recipe that the file, or one of its tables, does not state."""
    stated = tomllib.loads(path.read_text(encoding="utf-8"))
    stated = stated if table is None else stated[table]
    return [field.name for field in fields(kind) if field.name not in stated]


def _by_table(overrides: Sequence[str]) -> dict[str | None, dict[str, Any]]:
    result: dict[str | None, dict[str, Any]] = {}
    for text in overrides:
        name, value = _override(text)
        table, dot, field = name.rpartition(".")
        result.setdefault(table if dot else None, {})[field] = value
    return result


def _override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigFileError(f"--set {text!r}: write field=value, for example rate=1e-4")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def _checked(kind: type[Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    assert is_dataclass(kind)
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    result = {}
    for name, value in given.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
            raise ConfigFileError(f"{where}: {kind.__name__} has no field {name!r}; {hint}")
        try:
            result[name] = _convert(value, types[name])
        except TypeError:
            raise ConfigFileError(
                f"{where}: {name}={value!r} must be {' or '.join(_described(types[name]))}"
            ) from None
    return result


def _convert(value: Any, wanted: Any) -> Any:
    """The value as the field's type; raises TypeError if it is another."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        for option in inner:
            if option is not NoneType:
                return _convert(value, option)
    if origin is Literal:
        if value in inner:
            return value
        raise TypeError
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError
        if inner[-1] is Ellipsis:
            return tuple(_convert(item, inner[0]) for item in value)
        if len(value) != len(inner):
            raise TypeError
        return tuple(_convert(item, of) for item, of in zip(value, inner, strict=True))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, but a rank of true is a mistake
    if type(value) is not wanted:
        raise TypeError
    return value


def _described(wanted: Any) -> Iterator[str]:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        for option in inner:
            if option is not NoneType:
                yield from _described(option)
    elif origin is Literal:
        yield from (repr(option) for option in inner)
    elif origin is tuple:
        many = "whole numbers" if inner[0] is int else "numbers"
        yield f"an array of {many}" if inner[-1] is Ellipsis else f"an array of {len(inner)} {many}"
    else:
        known = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
        yield known.get(wanted, str(wanted))
