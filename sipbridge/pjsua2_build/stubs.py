"""Writes type stubs for the module that SWIG made, so that `mypy --strict` can follow its names."""

from __future__ import annotations

import ast
import keyword


def stubs_of(source: str) -> str:
    """Return the text of a `.pyi` for SWIG's `pjsua2.py`.

    SWIG says which names, classes, bases, methods and parameters there are, but no types: they are
    all `Any`, except for enumeration values (`int`) and the names of classes themselves.
    """
    lines = [
        '"""Names of pjsua2, made from the module that SWIG wrote; types are not known."""',
        "",
        "from typing import Any",
        "",
    ]
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            lines += _class(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            lines.append(f"def {node.name}({_parameters(node, method=False)}) -> Any: ...")
        elif isinstance(node, ast.Assign):
            lines += [
                f"{target.id}: int"
                for target in node.targets
                if isinstance(target, ast.Name)
                and not target.id.startswith("_")
                and isinstance(node.value, ast.Attribute)
            ]
    return "\n".join([*lines, ""])


def _class(node: ast.ClassDef) -> list[str]:
    bases = ", ".join(ast.unparse(b) for b in node.bases if ast.unparse(b) != "object")
    lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    seen = set()
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            # SWIG makes the constructors of abstract classes refuse at run time; keep it simple.
            lines.append("    def __init__(self, *args: Any, **kwargs: Any) -> None: ...")
        elif isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            static = any(
                isinstance(d, ast.Name) and d.id == "staticmethod" for d in item.decorator_list
            )
            if item.name in seen or keyword.iskeyword(item.name):
                continue
            if static:
                lines.append("    @staticmethod")
            parameters = _parameters(item, method=not static)
            lines.append(f"    def {item.name}({parameters}) -> Any: ...")
            seen.add(item.name)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            name = item.targets[0].id
            if name.startswith("_") or name == "thisown" or name in seen:
                continue
            seen.add(name)
            constant = isinstance(item.value, ast.Attribute)
            lines.append(f"    {name}: {'int' if constant else 'Any'}")
    if len(lines) == 1:
        lines.append("    pass")
    return lines


def _parameters(node: ast.FunctionDef, *, method: bool) -> str:
    """Parameters by position only: SWIG's names are those of C++ headers and may change."""
    arguments = node.args
    names = [a.arg for a in arguments.args]
    first = ["self"] if method and names else []
    rest = names[1:] if method else names
    required = len(names) - len(arguments.defaults) - len(first)
    parts = [f"{_safe(name)}: Any{'' if i < required else ' = ...'}" for i, name in enumerate(rest)]
    if first or parts:
        parts = [*first, *parts, "/"]
    if arguments.vararg is not None:
        parts.append("*args: Any")
    return ", ".join(parts)


def _safe(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) or name in ("self", "Any") else name
