"""The fields of a spec with the words beneath them, which Python itself throws away."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

UNITS = {"_s": "s", "_db": "dB", "_hz": "Hz"}
"""What the end of a field's name says of its unit: the house rule."""
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any value"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    name: str
    kind: Any
    default: str
    """As YAML, or ``required``."""
    doc: str
    """Empty where the source has no line beneath the field."""

    @property
    def unit(self) -> str:
        return next((unit for end, unit in UNITS.items() if self.name.endswith(end)), "")

    @property
    def spec(self) -> type | None:
        """The spec that a group of settings is made of; None for a setting."""
        return next((kind for kind in (self.kind, *typing.get_args(self.kind)) if dataclasses.is_dataclass(kind)), None)


def fields_of(spec: type) -> list[Field]:
    hints, docs = typing.get_type_hints(spec), _docs(Path(inspect.getfile(spec)))[spec.__name__]
    return [
        Field(name=field.name, kind=hints[field.name], default=_default(field), doc=docs.get(field.name, ""))
        for field in dataclasses.fields(spec)
    ]


def doc_of(spec: type) -> str:
    """The class's own docstring; empty where it has none but the one that dataclasses make up."""
    text = inspect.getdoc(spec) or ""
    return "" if text.startswith(f"{spec.__name__}(") else text


def type_words(kind: Any) -> str:
    """A type as the writer of a YAML file knows it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{yaml_words(choice)}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(argument) for argument in arguments))
    if origin is tuple:
        return f"list of: {type_words(arguments[0])}"
    if origin is Mapping:
        return f"mapping of names to: {type_words(arguments[1])}"
    return _WORDS[kind]


def yaml_words(value: Any) -> str:
    """A value in one line of YAML, as a sweep would write it; text that YAML would take for something else in quotes."""
    plain = list(value) if isinstance(value, tuple) else value
    if plain is None or (isinstance(plain, str) and not plain):
        return "null" if plain is None else '""'
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return yaml_words(field.default)
    if field.default_factory is dataclasses.MISSING:
        return "required"
    made = field.default_factory()
    return "" if dataclasses.is_dataclass(made) else yaml_words(made)


@functools.cache
def _docs(path: Path) -> dict[str, dict[str, str]]:
    """Class -> field -> the string that stands beneath it."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_beneath(node.body)) for node in classes}


def _beneath(body: list[ast.stmt]) -> list[tuple[str, str]]:
    found = []
    for field, below in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found.append((ast.unparse(field.target), inspect.cleandoc(str(below.value.value))))
    return found
