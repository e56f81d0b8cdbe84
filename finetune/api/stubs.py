"""Types of the public names: writes `simclr_tf/__init__.pyi` from the declared settings.

python -m finetune.api.stubs > simclr_tf/__init__.pyi
"""

import inspect
from typing import Any, get_args

import simclr_tf
from finetune.api.call import command_of

_HEAD = '''"""Types of the public names, written by `python -m finetune.api.stubs`."""

import os
from typing import Any, Literal

'''


def stub() -> str:
    """The text of `simclr_tf/__init__.pyi`."""
    names = {module: list(own) for module, own in simclr_tf.PLACES.items()}
    functions = {
        name: function
        for name in names["finetune.api.functions"]
        if hasattr(function := getattr(simclr_tf, name), "verb")
    }
    lines = []
    for module, own in sorted(names.items()):
        kept = sorted(n for n in own if n not in functions)
        lines += [f"from {module} import {name} as {name}" for name in kept]
    lines += ["", "__version__: str", "PLACES: dict[str, tuple[str, ...]]", ""]
    lines += [_function(name, function) for name, function in sorted(functions.items())]
    return _HEAD + "\n".join(lines)


def _function(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parts = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = "" if parameter.default is inspect.Parameter.empty else " = ..."
        parts.append(f"{parameter.name}: {_annotation(parameter, function.verb)}{default}")
    result = signature.return_annotation
    returned = result if isinstance(result, str) else getattr(result, "__name__", "Any")
    body = "".join(f"    {part},\n" for part in parts)
    return f"def {name}(\n{body}) -> {_RETURNED.get(returned, returned)}: ...\n"


_PLACE = "str | os.PathLike[str]"
_RETURNED = {"Path": "os.PathLike[str]"}
_OWN = {
    "images": f"{_PLACE} | ImageSet",
    "training": "dict[str, Any] | None",
    "command": 'Literal["finetune", "transfer"]',
}


def _annotation(parameter: inspect.Parameter, verb: str) -> str:
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        optional = " | None" if parameter.default is None else ""
        return _OWN.get(parameter.name, _PLACE) + optional
    for s in command_of(verb).config_type.settings():
        if s.name != parameter.name:
            continue
        kind = f"{s.kind.__name__}"
        if s.choices:
            kind = f"Literal[{', '.join(map(repr, s.choices))}]"
        elif s.kind is tuple:
            item = s.item.__name__
            kind = f"tuple[{item}, ...] | list[{item}]"
        elif s.kind is str:
            kind = _PLACE if _names_a_place(s.name) else "str"
        return f"{kind} | None" if None in get_args(parameter.annotation) or s.optional else kind
    return "str"


def _names_a_place(name: str) -> bool:
    words = ("dir", "manifest", "encoder", "checkpoint", "model", "teacher", "weights", "output")
    return any(word in name for word in words)


if __name__ == "__main__":
    print(stub(), end="")
