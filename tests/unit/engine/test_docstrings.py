import ast
from collections.abc import Iterator
from pathlib import Path

import swarm.engine

ENGINE = Path(swarm.engine.__file__).parent


def undocumented(module: ast.Module) -> Iterator[str]:
    """Public classes, functions, methods and properties of a module that say nothing of themselves."""
    public = [("", node) for node in module.body]
    for prefix, node in public:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"line {node.lineno}: {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                public += [(f"{node.name}.", inner) for inner in node.body]


def test_whatever_is_public_in_the_engine_has_a_docstring() -> None:
    """Every public class, function, method and property of the engine says what goes in and what comes out."""
    missing = [
        f"{path.relative_to(ENGINE.parent.parent)}, {place}"
        for path in sorted(ENGINE.rglob("*.py"))
        for place in undocumented(ast.parse(path.read_text()))
    ]
    assert not missing, "\n".join(["give these a docstring, with shapes, units and the errors they raise:", *missing])
