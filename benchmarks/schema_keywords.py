"""Which keywords of JSON Schema are enforced while decoding, by JSON Schema's own test-suite.

    pip download --no-binary :all: --no-deps jsonschema && tar xzf jsonschema-*.tar.gz
    python benchmarks/schema_keywords.py --suite jsonschema-*/json/tests/draft2020-12

For every file of the suite: how many of its schemas `check_schema` accepts; of these, how many valid instances can be
written and how many invalid ones cannot. Instances are laid out as `json.dumps` does it. A valid instance that cannot
be written is a stricter rule of ours (keys in the schema's order, `1` instead of `1.0`); an invalid one that can is a
fault, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from swarm.engine.base import GenerateRequest, Prompt
from swarm.engine.llama.grammar.matcher import Matcher
from swarm.engine.llama.grammar.structured import byte_compiler, check_schema
from swarm.errors import SchemaUnsupported


def can_write(start: Matcher, instance: Any) -> bool:
    text = list(json.dumps(instance, ensure_ascii=False).encode())
    matcher = start.copy()
    if matcher.valid(text) < len(text):
        return False
    matcher.take(text)
    return matcher.accepting


def judge(groups: list[dict[str, Any]]) -> tuple[Counter[str], Counter[str], list[str]]:
    """Counts for the table, why schemas were refused, and instances that were judged otherwise than by the suite."""
    counts: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    different = []
    for group in groups:
        schema = group["schema"]
        try:
            if isinstance(schema, bool):
                raise SchemaUnsupported("a schema that is true or false: an output is an object")
            check_schema(schema)
        except SchemaUnsupported as error:
            counts["refused"] += 1
            causes[str(error)] += 1
            continue
        counts["accepted"] += 1
        start = byte_compiler().matcher(GenerateRequest(Prompt(()), 100_000, schema))
        for test in group["tests"]:
            kind = "valid" if test["valid"] else "invalid"
            counts[kind] += 1
            if can_write(start, test["data"]) == test["valid"]:
                counts[f"{kind} right"] += 1
            else:
                different.append(f"{kind} {json.dumps(test['data'])} for {json.dumps(schema)}")
    return counts, causes, different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, required=True, help="the folder of draft 2020-12")
    parser.add_argument("--causes", action="store_true", help="say why schemas are refused")
    asked = parser.parse_args()
    total: Counter[str] = Counter()
    print("| file | schemas accepted | refused | valid written | invalid kept out |\n|---|---|---|---|---|")
    for path in sorted(asked.suite.glob("*.json")):
        counts, causes, different = judge(json.loads(path.read_text(encoding="utf-8")))
        total += counts
        print(row(path.stem, counts))
        if asked.causes:
            print(*(f"    refused {n}: {cause}" for cause, n in causes.items()), sep="\n")
            print(*(f"    otherwise: {line}" for line in different), sep="\n")
    print(row("all", total))
    return int(total["invalid right"] < total["invalid"])


def row(name: str, counts: Counter[str]) -> str:
    shown = [f"{counts[f'{kind} right']} of {counts[kind]}" if counts[kind] else "" for kind in ("valid", "invalid")]
    return f"| {name} | {counts['accepted']} | {counts['refused']} | {shown[0]} | {shown[1]} |"


if __name__ == "__main__":
    sys.exit(main())
