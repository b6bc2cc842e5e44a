"""velagen's compiler beside `cue import`, on the suite's schemas and on real ones, in one run.

Prints ratios (ours / theirs) and a table of the real schemas: ``python benchmarks/compiler/run.py [--write]``;
``--write`` puts the table into docs/schema-real.md.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_specifications
import yaml

from velagen.cue import to_cue
from velagen.errors import VelagenError
from velagen.oracle import Oracle
from velagen.schema import compile_schema, parse_schema
from velagen.tools import source, tool

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT.parent / "shared" / "conformance" / "draft2020-12"
#: Where the pinned modules keep CRDs: (module, folder).
FOLDERS = (("kserve", "config/crd/full"), ("kserve", "test/crds"), ("kubevela", "charts/vela-core/crds"))


def crds() -> Iterator[tuple[str, Any]]:
    """The OpenAPI schema of the newest version of every CRD, by kind."""
    seen: set[str] = set()
    for module, folder in FOLDERS:
        for file in sorted((source(module) / folder).rglob("*.yaml")):
            try:
                documents = list(yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
            except yaml.YAMLError:
                continue
            for document in documents:
                if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
                    continue
                if "names" not in document.get("spec", {}):
                    continue  # a patch of one
                version = (document["spec"].get("versions") or [{}])[-1]
                schema = version.get("schema", {}).get("openAPIV3Schema")
                name = f"{document['spec'].get('group')}/{version.get('name')} {document['spec']['names']['kind']}"
                if schema and name not in seen:
                    seen.add(name)
                    yield name, schema


def packaged() -> Iterator[tuple[str, Any]]:
    """JSON Schemas that come with packages and modules."""
    for file in sorted(source("kserve").rglob("values.schema.json")):
        yield f"kserve {file.parent.name} values", json.loads(file.read_text())
    # The package is read, never imported: what it carries are the schemas that well-known tools publish.
    carrier = importlib.util.find_spec("check_jsonschema")
    for place in (carrier.submodule_search_locations or ()) if carrier else ():
        for file in sorted((Path(place) / "builtin_schemas" / "vendor").glob("*.json")):
            yield file.stem, json.loads(file.read_text())
    folder = Path(jsonschema_specifications.__file__).parent / "schemas"
    for file in sorted(folder.glob("*/metaschema.json")):
        yield f"JSON Schema {file.parent.name} meta-schema", json.loads(file.read_text())


def compiled(schema: Any) -> tuple[float, str, str]:
    """Seconds, the CUE text, and why there is none."""
    start = time.perf_counter()
    try:
        text = to_cue(compile_schema(parse_schema(schema), standalone=True, assert_formats=False).file())
    except VelagenError as error:
        return time.perf_counter() - start, "", error.problems[0].message
    return time.perf_counter() - start, text, ""


def real(oracle: Oracle) -> list[str]:
    """One table row for each real schema."""
    rows = []
    for name, schema in (*crds(), *packaged()):
        size = len(json.dumps(schema))
        seconds, text, reason = compiled(schema)
        if not text:
            rows.append(f"| {name} | {size / 1000:.0f} | refused: {reason[:140]} | | |")
            continue
        start = time.perf_counter()
        verdict = oracle.render(text, [{}])[0]
        spent = time.perf_counter() - start
        alone = oracle.compile(text)
        state = "compiled" if alone.ok else f"does not evaluate: {alone.error[:80]}"
        fate = f" {verdict.fate}" if verdict.fate else ""
        rows.append(f"| {name} | {size / 1000:.0f} | {state} | {seconds:.2f} | {spent:.2f}{fate} |")
    return rows


def imported(schema: Any) -> float:
    """Seconds that `cue import` takes, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "schema.json"
        file.write_text(json.dumps(schema))
        start = time.perf_counter()
        subprocess.run(
            [tool("cue", "0.14.1"), "import", "-f", "-o", "-", f"jsonschema:{file}"], capture_output=True, check=False
        )
        return time.perf_counter() - start


def ours(schema: Any) -> float:
    """Seconds that `velagen cue` takes, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "schema.json"
        file.write_text(json.dumps(schema))
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "velagen.cli", "cue", "--no-formats", str(file)], capture_output=True, check=False
        )
        return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    if SUITE.is_dir():
        groups = [group["schema"] for file in sorted(SUITE.glob("*.json")) for group in json.loads(file.read_text())]
        with Oracle("0.14.1") as oracle:
            start = time.perf_counter()
            for schema in groups:
                compiled(schema)
            mine = time.perf_counter() - start
            start = time.perf_counter()
            for schema in groups:
                oracle.imported(schema, [])
            theirs = time.perf_counter() - start
        print(
            f"suite, {len(groups)} schemas, warm: velagen {mine:.2f} s, cue {theirs:.2f} s, ratio {mine / theirs:.2f}"
        )
    chosen = list(crds())
    sample = [
        schema for _, schema in sorted(chosen, key=lambda one: len(json.dumps(one[1])))[:: max(1, len(chosen) // 6)]
    ]
    ratios = [ours(schema) / imported(schema) for schema in sample]
    print(
        f"CRDs, {len(sample)} of {len(chosen)}, commands with their start: median ratio {statistics.median(ratios):.2f}"
    )
    with Oracle("0.9.2", seconds=30) as oracle:
        rows = real(oracle)
    table = "\n".join(["| schema | kB | result | compile s | evaluate s (0.9.2) |", "|---|---:|---|---:|---:|", *rows])
    print(table)
    if "--write" in sys.argv:
        note = "<!-- Written by `python benchmarks/compiler/run.py --write`; do not edit. -->"
        text = f"{note}\n# Real schemas\n\n{table}\n"
        (ROOT / "docs" / "schema-real.md").write_text(text)


if __name__ == "__main__":
    main()
