"""What can be said of a tools.py without running it."""

from __future__ import annotations

import ast


def fault(source: bytes) -> str | None:
    """Why `source` cannot be a pack's tools.py, or None."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        where = f"line {e.lineno}: {e.msg}" if isinstance(e, SyntaxError) else str(e)
        return f"is not Python: {where}"
    names: set[str] = set()
    for node in module.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if "run" not in names:
        return "defines no function 'run'; a tool pack needs run(**inputs) -> dict"
    return None
