"""From a YAML file to checked values: every mistake is found at once and named by file, dotted key, value and nearest choice."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from timbre_ray.specs import TrialSpec, refused

T = TypeVar("T")

#: Values of a sweep's YAML, anchors written out: the largest sweep has some hundreds.
MAX_NODES = 100_000


class SweepError(ValueError):
    """A sweep's YAML cannot be used; the message lists every problem."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        self.path, self.problems = path, tuple(dict.fromkeys(problems))  # arms share the problems of their base
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


@dataclasses.dataclass(frozen=True)
class Tree:
    """Nested settings, with the place in the file that each one came from."""

    values: dict[str, Any]
    origins: dict[str, str]
    """Dotted key of a setting -> dotted key where it stands in the file."""

    def merged(self, values: Mapping[str, Any], place: str) -> Tree:
        """These settings with ``values``, found at ``place`` in the file, over them; mappings merge, all else replaces."""
        leaves = dict(flatten(values))
        merged, origins = self.values, dict(self.origins)
        for key, value in leaves.items():
            merged = _with_leaf(merged, key.split("."), value)
            origins[key] = f"{place}.{key}"
        return Tree(merged, origins)

    def origin(self, key: str, default: str) -> str:
        """Where a setting stands: its own place, or that of the first one beneath it."""
        for known, place in self.origins.items():
            if known == key or known.startswith(f"{key}."):
                return place.removesuffix(known.removeprefix(key))
        return f"{default}.{key}" if key else default


def read_yaml(path: Path) -> tuple[dict[str, Any], str]:
    """A YAML file's mapping and its text. Raises SweepError for no file, no UTF-8, no YAML, a python tag, a key that
    stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SweepError(path, [f"cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError as error:
        raise SweepError(path, [f"not UTF-8 (byte {error.start}); save it as UTF-8"]) from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if _num_nodes(root, {}) > MAX_NODES:
            raise SweepError(path, [f"its anchors (&, *) stand for more than {MAX_NODES} values; write out what is meant"])
        data, twice = yaml.safe_load(text), list(_doubled(root))
    except yaml.YAMLError as error:
        raise SweepError(path, [f"not plain YAML: {' '.join(str(error).split())}"]) from None
    except RecursionError:
        raise SweepError(path, ["nested too deeply, or an anchor (&) that holds itself; write out what is meant"]) from None
    if twice:
        raise SweepError(path, twice)
    if not isinstance(data, dict):
        raise SweepError(path, ["a sweep is a mapping with the keys name, base, arms or ablation, grid, search, run"])
    return data, text


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as (dotted key, value); an empty mapping is a value of its own."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def check(kind: type[T], tree: Tree, place: str) -> tuple[T | None, list[str]]:
    """The settings as a dataclass, or None and what is wrong with them, each problem with its place in the file.

    place: where a setting that is missing belongs.
    """
    problems = [
        f"{tree.origin('.'.join(parts), place)}={value!r}: true or false where a number is expected"
        for parts, value in _booleans_as_numbers(kind, tree.values)
    ]
    try:
        checked = _adapter(kind).validate_python(tree.values)
    except ValidationError as error:
        return None, problems + [_problem(kind, tree, place, one) for one in error.errors()]
    if isinstance(checked, TrialSpec):
        problems += [f"{tree.origin(key, place)}={value}: {words}" for key, value, words in refused(checked)]
    return (None if problems else checked), problems


def nearest(word: Any, choices: Iterable[str]) -> str:
    """``nearest: X`` or, where nothing is near, the choices themselves."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.5)
    return f"nearest: {near[0]}" if near else f"choose one of {', '.join(choices)}"


def has_key(kind: Any, key: str) -> bool:
    """True if a dotted key names a setting of ``kind`` (not a group of settings)."""
    annotation = _annotation(kind, key.split("."))
    return annotation is not None and not _fields(annotation)


def unknown_key(kind: Any, parts: Sequence[str]) -> str:
    """Words on a key that is no setting of ``kind``: the nearest at its place, or else the same name elsewhere."""
    *parents, name = parts
    if below := _fields(_annotation(kind, parts)):
        return f"a group of settings; choose one of {', '.join('.'.join([*parts, field]) for field in below)}"
    here = list(_fields(_annotation(kind, parents)))
    elsewhere = [key for key in _dotted(kind) if key.split(".")[-1] == name]
    if elsewhere and not difflib.get_close_matches(name, here, n=1, cutoff=0.75):
        return f"unknown key; nearest: {' or '.join(elsewhere)}"
    return f"unknown key; {nearest('.'.join(parts), ['.'.join([*parents, other]) for other in here])}"


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)  # building one takes longer than all checks of a trial


def _problem(kind: Any, tree: Tree, place: str, error: Any) -> str:
    parts, value = [str(part) for part in error["loc"]], error["input"]
    where = tree.origin(".".join(parts), place)
    match error["type"]:
        case "unexpected_keyword_argument":
            return f"{where}={value!r}: {unknown_key(kind, parts)}"
        case "missing":
            return f"{where}: missing, and it has no default; add it"
        case "value_error":  # the dataclass's own check, which begins with ``field=value: ``
            field, _, words = str(error["ctx"]["error"]).partition("=")
            return f"{tree.origin('.'.join([*parts, field]), place)}={words}"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            near = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            return f"{where}={value!r}: must be one of {', '.join(choices)}{hint}"
        case _:
            return f"{where}={value!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _with_leaf(values: Mapping[str, Any], parts: list[str], value: Any) -> dict[str, Any]:
    name, *rest = parts
    if not rest:
        keep = value == {} and isinstance(values.get(name), Mapping)  # ``teacher: {}`` changes nothing
        return {**values, name: values[name] if keep else value}
    below = values.get(name)
    return {**values, name: _with_leaf(below if isinstance(below, Mapping) else {}, rest, value)}


def _num_nodes(node: yaml.Node | None, known: dict[int, int]) -> int:
    """As many as there are once every anchor's content stands where it is named: a few lines may stand for billions."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_num_nodes(child, known) for child in children)
    return known[id(node)]


def _doubled(node: yaml.Node | None) -> Iterator[str]:
    """Keys that stand twice in one mapping: YAML would keep the last in silence."""
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                yield f"line {line}: key {key.value!r} stands twice (first in line {seen[key.value]}); rename or remove one"
            seen[str(key.value)] = line
        children = [value for _, value in node.value]
    for child in children:
        yield from _doubled(child)


def _booleans_as_numbers(
    kind: Any, values: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """``seed: yes`` would pass as 1."""
    for name, value in values.items():
        parts = (*above, str(name))
        if isinstance(value, Mapping):
            yield from _booleans_as_numbers(kind, value, parts)
        elif isinstance(value, bool):
            annotation = _annotation(kind, parts)
            if {annotation, *typing.get_args(annotation)} & {int, float}:
                yield parts, value


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Field -> annotation of a dataclass; of ``X | None`` those of X."""
    for option in (kind, *typing.get_args(kind)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option)
            return {field.name: hints[field.name] for field in dataclasses.fields(option)}
    return {}


def _annotation(kind: Any, parts: Sequence[str]) -> Any:
    """Annotation at a dotted key; None where there is no such key."""
    for name in parts:
        if typing.get_origin(kind) is Mapping:
            kind = typing.get_args(kind)[1]
        else:
            kind = _fields(kind).get(name)
    return kind


def _dotted(kind: Any, above: str = "") -> Iterator[str]:
    for name, annotation in _fields(kind).items():
        yield f"{above}{name}"
        yield from _dotted(annotation, f"{above}{name}.")
