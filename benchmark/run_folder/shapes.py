"""The shape that a JSON document of a run folder must have, as other programs and people write there too.

A shape is one of these: a type, where `float` takes whole numbers too and `object` takes everything;
a tuple of types, of which one must fit, with None for null; `[shape]`, a list of such values;
`{str: shape}`, an object with any keys; `{"key": shape, "key?": shape}`, an object that has the
first key and may have the second and others.
"""

from __future__ import annotations

from typing import Any

Shape = Any
NUMBER = (float, None)
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


def misfit(value: Any, shape: Shape, place: str = "it") -> str:
    """What does not fit, such as `cells[2].run_id is missing`; empty for a value of that shape."""
    if type(value) is shape:
        return ""
    if isinstance(shape, dict):
        return _misfit_of_object(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is not {WORDS[list]}"
        return _first(misfit(inner, shape[0], f"{place}[{at}]") for at, inner in enumerate(value))
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if any(_is(value, kind) for kind in kinds):
        return ""
    return f"{place} is not {' or '.join('null' if kind is None else WORDS[kind] for kind in kinds)}"


def _misfit_of_object(value: Any, shape: dict[Any, Shape], place: str) -> str:
    if not isinstance(value, dict):
        return f"{place} is not {WORDS[dict]}"
    inside = "" if place == "it" else f"{place}."
    if str in shape:
        return _first(misfit(inner, shape[str], f"{inside}{key[:40]}") for key, inner in value.items())
    for key, inner in shape.items():
        name = key.removesuffix("?")
        if name in value:
            if problem := misfit(value[name], inner, f"{inside}{name}"):
                return problem
        elif name == key:
            return f"{inside}{name} is missing"
    return ""


def _first(problems: Any) -> str:
    return next(filter(None, problems), "")


def _is(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)
