"""The JSON Schema Test Suite against the compiler and against cue's own importer, on both CUE versions.

Run as a command it measures and writes docs/conformance.md: ``python -m tests.conformance.suite``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import VERSIONS, Oracle
from velagen.schema import Schema, compile_schema, parse_schema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "conformance.md"
THRESHOLDS = Path(__file__).with_name("thresholds.json")

#: What a refusal says when a group needs a document that is not here.
_REMOTE = ("leads nowhere", "unknown draft")
#: How an instance meets the schema: as the whole parameter, or as one property of an object, open or closed.
PLACES = ("root", "property", "closed")
SEMANTICS = ("vet", "render", "definition")


#: The selection that the numbers in the document are about.
COMMITTED = Path(__file__).with_name("JSON-Schema-Test-Suite")


def folder() -> Path:
    """Where the suite's files are: in $VELAGEN_CONFORMANCE, for another selection of them; else the committed ones."""
    return Path(os.environ.get("VELAGEN_CONFORMANCE", COMMITTED)) / "draft2020-12"


@dataclass(frozen=True)
class Group:
    """One schema of the suite and what is tried against it."""

    keyword: str
    name: str
    schema: Any
    instances: tuple[Any, ...]
    valid: tuple[bool, ...]


def groups() -> Iterator[Group]:
    """Everything in the folder, file by file."""
    for file in sorted(folder().glob("*.json")):
        for group in json.loads(file.read_text(encoding="utf-8")):
            tests = group["tests"]
            yield Group(
                file.stem,
                group["description"],
                group["schema"],
                tuple(one["data"] for one in tests),
                tuple(one["valid"] for one in tests),
            )


def placed(schema: Any, place: str) -> Any:
    """*schema* at *place*."""
    if place == "root":
        return schema
    inner = schema
    if isinstance(schema, dict):
        inner = {"$id": "https://velagen.test/inner", **schema}
        outer: dict[str, Any] = {"properties": {"v": {"$ref": inner["$id"]}}, "$defs": {"inner": inner}}
    else:
        outer = {"properties": {"v": inner}}
    outer = {"$id": "https://velagen.test/outer", "type": "object", **outer}
    if isinstance(schema, dict) and "$schema" in schema:
        outer["$schema"] = schema["$schema"]
    if place == "closed":
        outer["additionalProperties"] = False
    return outer


@dataclass
class Result:
    """What was measured; counts are tests, by keyword."""

    total: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    left_out_groups: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    #: (who, version, semantics, place) -> keyword -> tests that came out right
    right: dict[tuple[str, str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    #: Verdicts that differ from the suite's, on schemas that were accepted.
    wrong: list[str] = field(default_factory=list)
    #: Schemas that KubeVela's conversion could not take.
    openapi: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    importer_wrong: Counter[str] = field(default_factory=Counter)

    def score(self, who: str, version: str, semantics: str, place: str = "root") -> tuple[int, int]:
        """Tests that came out right, of how many."""
        return self.right[who, version, semantics, place].total(), self.total.total()


def measure() -> Result:
    """Both compilers over the whole folder."""
    result = Result()
    with Oracle("0.9.2") as old, Oracle("0.14.1") as new:
        for group in groups():
            _measure_group(group, {"0.9.2": old, "0.14.1": new}, result)
    return result


def _measure_group(group: Group, oracles: dict[str, Oracle], result: Result) -> None:
    count = len(group.instances)
    try:
        parse_schema(group.schema)
    except VelagenError as error:
        if any(word in str(error) for word in _REMOTE):
            result.left_out += count
            result.left_out_groups += 1
            return
    if "https://json-schema.org/draft/2020-12/schema" in json.dumps(
        group.schema.get("$ref", "") if isinstance(group.schema, dict) else ""
    ):
        result.left_out += count
        result.left_out_groups += 1
        return
    result.total[group.keyword] += count
    for place in PLACES:
        try:
            schema = parse_schema(placed(group.schema, place))
            # In the suite format is an annotation, and 1.0 stands in the instances as 1.0.
            compiled = compile_schema(schema, assert_formats=False, integers="json", standalone=True)
        except VelagenError as error:
            if place == "root":
                result.refused[group.keyword] += count
                result.reasons[error.problems[0].message] += count
            continue
        text = to_cue(compiled.file())
        values = [value if place == "root" else {"v": value} for value in group.instances]
        for version, oracle in oracles.items():
            for semantics, verdicts in (("vet", oracle.vet(text, values)), ("render", oracle.render(text, values))):
                for value, valid, verdict in zip(group.instances, group.valid, verdicts, strict=True):
                    if verdict.ok == valid:
                        result.right["velagen", version, semantics, place][group.keyword] += 1
                    else:
                        what = f"{group.keyword}: {group.name}: {json.dumps(value)[:60]}"
                        result.wrong.append(f"{version} {semantics} {place}: {what}: {verdict.error[:200]}")
            if place != "root":
                _convert(oracle, text, f"{version} {group.keyword}: {group.name}", result)
        if place != "root":
            _measure_definition(group, schema, place, oracles, result)
    for version, oracle in oracles.items():
        verdicts = oracle.imported(group.schema, group.instances)
        for valid, verdict in zip(group.valid, verdicts, strict=True):
            if verdict.ok == valid:
                result.right["importer", version, "vet", "root"][group.keyword] += 1
            elif verdict.ok:
                result.importer_wrong[version] += 1


def _convert(oracle: Oracle, text: str, what: str, result: Result) -> None:
    converted = oracle.openapi(text)
    if not converted.ok:
        result.openapi.append(f"{what}: {converted.error[:200]}")


def _measure_definition(group: Group, schema: Schema, place: str, oracles: dict[str, Oracle], result: Result) -> None:
    """The two faces that a definition's parameter has: the one of rendering must judge as the suite does."""
    compiled = compile_schema(schema, assert_formats=False, integers="json", faces=True)
    text = to_cue(compiled.file())
    for version, oracle in oracles.items():
        verdicts = oracle.render(text, [{"v": value} for value in group.instances])
        for value, valid, verdict in zip(group.instances, group.valid, verdicts, strict=True):
            if verdict.ok == valid:
                result.right["velagen", version, "definition", place][group.keyword] += 1
            else:
                what = f"{group.keyword}: {group.name}: {json.dumps(value)[:60]}"
                result.wrong.append(f"{version} definition {place}: {what}: {verdict.error[:200]}")
        _convert(
            oracle,
            f"{text}\ncontext: {{name: string}}\n",
            f"{version} definition {group.keyword}: {group.name}",
            result,
        )


COLUMNS = (
    ("velagen", "0.9.2", "vet", "root"), ("velagen", "0.9.2", "render", "root"),
    ("velagen", "0.14.1", "vet", "root"), ("velagen", "0.14.1", "render", "root"),
    ("importer", "0.9.2", "vet", "root"), ("importer", "0.14.1", "vet", "root"),
)  # fmt: skip


def table(result: Result) -> str:
    """The counts by keyword as a table."""
    lines = [
        "| keyword | tests | refused | 0.9.2 vet | 0.9.2 render | 0.14.1 vet | 0.14.1 render"
        " | importer 0.9.2 | importer 0.14.1 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for keyword in sorted(result.total):
        cells = [result.right[column][keyword] for column in COLUMNS]
        lines.append(
            f"| {keyword} | {result.total[keyword]} | {result.refused[keyword]} | " + " | ".join(map(str, cells)) + " |"
        )
    total = result.total.total()
    cells = [result.right[column].total() for column in COLUMNS]
    lines.append(
        f"| **all** | {total} | {result.refused.total()} | "
        + " | ".join(f"**{cell}** ({cell / total:.1%})" for cell in cells)
        + " |"
    )
    return "\n".join(lines)


def document(result: Result) -> str:
    """docs/conformance.md."""
    reasons = "\n".join(f"- {count} tests: {reason}" for reason, count in result.reasons.most_common())

    def right(version: str, semantics: str, place: str) -> str:
        # A definition's parameter is an object, so the root as it stands has no such form.
        no_such = semantics == "definition" and place == "root"
        return "–" if no_such else str(result.right["velagen", version, semantics, place].total())  # noqa: RUF001  # the sign for what there is not

    places = "\n".join(
        f"| {place} | " + " | ".join(right(version, one, place) for version in VERSIONS for one in SEMANTICS) + " |"
        for place in PLACES
    )
    return f"""<!-- Written by `python -m tests.conformance.suite`; do not edit. -->
# Conformance

The required tests of JSON Schema draft 2020-12 (the part of the JSON Schema Test Suite in
`tests/conformance/JSON-Schema-Test-Suite`, under its own licence), measured on two versions of CUE and in two meanings,
beside cue's own importer in the same run.

- **vet** is `cue vet -c`: the instance is unified with the schema, and everything must be concrete.
- **render** is KubeVela's way: template and `parameter: {{…}}` are one text, validated without asking for concreteness,
  with the `context` that KubeVela gives.
- **refused** counts the tests whose schema the compiler refuses. They count as not right in every column of velagen.
- The **importer** is `cue import`'s code (`encoding/jsonschema`) of the same version, judged by vet; what it can't
  import counts as not right.

{result.left_out} tests in {result.left_out_groups} groups are left out: they need the suite's remote documents or the
meta-schema.

{table(result)}

Verdicts on accepted schemas that differ from the suite's: **{len(result.wrong)}**. The importer accepts
{result.importer_wrong["0.9.2"]} invalid instances on 0.9.2 and {result.importer_wrong["0.14.1"]} on 0.14.1.

The same schemas as a property of an object (the way they stand in a KubeVela parameter), open and closed; tests right:

| place | 0.9.2 vet | 0.9.2 render | 0.9.2 definition | 0.14.1 vet | 0.14.1 render | 0.14.1 definition |
|---|---:|---:|---:|---:|---:|---:|
{places}

**definition** is render for the parameter of a definition, which has two faces: checks with sentences where KubeVela
renders, full types where it derives the form.

KubeVela's OpenAPI conversion (its own code on 0.9.2, CUE's on 0.14.1) failed for {len(result.openapi)} of them.

## What is refused here

{reasons or "Nothing."}
"""


def thresholds(result: Result) -> dict[str, Any]:
    """The numbers that must not get worse."""
    return {
        "total": result.total.total(),
        "right": {
            f"{version} {semantics} {place}": result.right["velagen", version, semantics, place].total()
            for version in VERSIONS
            for semantics in SEMANTICS
            for place in PLACES
        },
    }


if __name__ == "__main__":
    if folder().parent != COMMITTED:
        sys.exit("the document is about the committed selection: unset VELAGEN_CONFORMANCE")
    measured = measure()
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(measured), encoding="utf-8")
    THRESHOLDS.write_text(json.dumps(thresholds(measured), indent=2) + "\n", encoding="utf-8")
    print(table(measured))
    for line in (*measured.wrong, *measured.openapi):
        print(line)
