"""JSON Schema to CUE: read it, ask about it, check values against it, compile it."""

from velagen.schema.compile import CompiledSchema, compile_schema
from velagen.schema.load import load_schema
from velagen.schema.model import Property, Schema, Shape, parse_schema
from velagen.schema.validate import validate

__all__ = [
    "CompiledSchema", "Property", "Schema", "Shape", "compile_schema", "load_schema", "parse_schema", "validate",
]  # fmt: skip
