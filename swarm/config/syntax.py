"""What a YAML syntax error means to the person who made it."""

from __future__ import annotations

from yaml import MarkedYAMLError

from swarm.config.problems import Problem

_MEANINGS = {
    "mapping values are not allowed": "a ':' is not expected here; quote a text that holds ': ', or indent alike",
    "could not find expected ':'": "this key has no ':' after it",
    "did not find expected key": "this does not line up with the keys above; indent alike",
    "expected <block end>": "this does not line up with the keys above; indent alike",
    "did not find expected '-' indicator": "this does not line up with the list above; indent alike",
    "did not find expected ',' or": "a bracket is not closed, or a comma is missing",
    "expected ',' or": "a bracket is not closed, or a comma is missing",
    "did not find expected node content": "a value is missing here",
    "expected the node content": "a value is missing here",
    "unexpected end of stream": "a quote is opened and never closed",
    "undefined alias": "aliases are not allowed; write the value out",
    "undefined tag handle": "tags are not allowed; delete it",
    "found character": "this character cannot start a value; quote the text",
    "expected alphabetic or numeric": "'&' and '*' start anchors and aliases, which are not allowed; quote the text",
    "unknown escape character": "unknown escape after '\\' in double quotes; use single quotes, or write '\\\\'",
}


def explain(error: Exception, text: str, file: str) -> Problem:
    """A syntax error as one line with its place, and a remedy where the cause can be seen."""
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return Problem(1, 1, "is not valid YAML", file=file)
    lines = text.splitlines() or [""]
    line = lines[min(mark.line, len(lines) - 1)]
    return Problem(mark.line + 1, mark.column + 1, f"is not valid YAML: {_meaning(error, line)}", file=file)


def _meaning(error: Exception, line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        return "a tab cannot indent; use spaces"
    before = line.partition("${")[0]
    if "${" in line and ("{" in before or "[" in before):
        return 'quote references inside { } and [ ]: text: "${input.text}"'
    about = _about(error)
    return about + (_opened(error) if "closed" in about else "")


def _about(error: Exception) -> str:
    problem = " ".join(str(getattr(error, "problem", "") or "it cannot be parsed").split())
    return next((meaning for start, meaning in _MEANINGS.items() if start in problem), problem)


def _opened(error: Exception) -> str:
    mark = getattr(error, "context_mark", None)
    return "" if mark is None else f" (opened on line {mark.line + 1})"
