"""Values of options, checked before anything heavy is imported; `mmsa.build.check` checks them and all the rest."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from mmsa import ranges
from mmsa.config import PLAIN_GROUPS, TopOptions, check_value

_LOADING = "mmsa.data.loading.Loading"
_WORDS = {**vars(ranges), "Annotated": Annotated, "Any": Any, "Literal": Literal}
_WORDS |= {"Mapping": Mapping, "Sequence": Sequence, "int": int, "float": float, "bool": bool, "str": str}
"""The names of an annotation; one with other names is left to the check that imports it."""


def check_values(config: Mapping[str, Any], place: str = "") -> None:
    """Refuse a value that the constructor's annotation does not admit, without importing the constructor.

    Args:
        config: the composed configuration, or one node of it, resolved.
        place: the node's place in it.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    plain = PLAIN_GROUPS.get(place) if place else TopOptions
    annotations = get_type_hints(plain, include_extras=True) if plain else {}
    targets = [config.get("_target_"), *([_LOADING] if place == "dataset" else [])]
    for target in targets:
        if str(target).startswith("mmsa."):
            annotations |= _annotations(str(target))
    for name in [name for name in config if name in annotations]:
        check_value(f"{place}.{name}" if place else name, config[name], annotations[name])
    for name, value in config.items():
        if isinstance(value, Mapping) and name not in annotations:
            check_values(value, f"{place}.{name}" if place else name)


def _annotations(target: str) -> dict[str, Any]:
    """Those parameters of a class or function of ours whose annotations can be read from its source alone."""
    module, _, name = target.rpartition(".")
    spec = None
    with suppress(ImportError):  # which is said where parts are checked
        spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return {}
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    words = dict(_WORDS)
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):  # such as Monitor = Literal[…]
            words |= _evaluated({node.targets[0].id: node.value}, words)
    found = next(
        (node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), None
    )
    if isinstance(found, ast.ClassDef):
        fields = {
            f.target.id: f.annotation
            for f in found.body
            if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)
        }
        found = next((n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if found is None:  # of a dataclass
            return _evaluated(fields, words)
    if found is None:
        return {}
    parameters = [*found.args.args, *found.args.kwonlyargs]
    return _evaluated({p.arg: p.annotation for p in parameters if p.annotation is not None}, words)


def _evaluated(nodes: Mapping[str, ast.expr], words: dict[str, Any]) -> dict[str, Any]:
    """The values of those expressions that are made of these words."""
    values = {}
    for name, node in nodes.items():
        if {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} <= words.keys():
            values[name] = eval(ast.unparse(node), dict(words))
    return values
