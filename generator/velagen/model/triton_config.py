"""Reads config.pbtxt by its schema: protobuf's text form of a ModelConfig, as Triton itself parses it."""

from __future__ import annotations

import difflib
import re
from typing import Final

from google.protobuf import text_format

from velagen.errors import Place, Problem, VelagenError
from velagen.model.proto import triton_config_pb2 as pb

#: Bytes of a config.pbtxt; the longest known ones have some thousand.
MOST: Final = 1024 * 1024
#: Strings and comments; and numbers that Python's reader of the format takes and Triton's does not.
_PLAIN: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*')
_PYTHON_NUMBER: Final = re.compile(r"(?<![\w.])(\+\d\w*|\d+_\w+)")
_POSITION: Final = re.compile(r"^\d+:\d+ : ")
_MESSAGE: Final = re.compile(r'[Mm]essage type "(?:velagen\.triton\.)?([\w.]+)"')
_ENUM: Final = re.compile(r'Enum type "velagen\.triton\.([\w.]+)" has no value named (\w+)')
_FIELD: Final = re.compile(r'has no field named "(\w+)"')


def read_config(text: str, origin: str) -> pb.ModelConfig:
    """The configuration that ``text`` says; VelagenError with file and line when it says none."""
    config = pb.ModelConfig()
    if number := _PYTHON_NUMBER.search(_PLAIN.sub(lambda match: " " * len(match[0]), text)):
        line = text.count("\n", 0, number.start(1)) + 1
        raise VelagenError(Problem(f"{number[1]} is not a number", Place(origin, line), "digits, with a - if need be"))
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise VelagenError(_explained(error, text, origin)) from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise VelagenError(Problem(f"no configuration of a model: {error}", Place(origin))) from error
    return config


def _explained(error: text_format.ParseError, text: str, origin: str) -> Problem:
    line, column = error.GetLine(), error.GetColumn()
    lines = text.splitlines()
    said = _POSITION.sub("", str(error)).partition(" : ")[0].rstrip(".")
    place = Place(origin, line, column)
    if line and line <= len(lines) and "${" in lines[line - 1]:
        return Problem("a ${...} that nothing filled in", place)
    if (unknown := _FIELD.search(said)) and (message := _MESSAGE.search(said)):
        descriptor = pb.DESCRIPTOR.pool.FindMessageTypeByName(f"velagen.triton.{message[1]}")
        return Problem(
            f"unknown field {unknown[1]} in {message[1]}", place, _meant(unknown[1], list(descriptor.fields_by_name))
        )
    if unknown := _ENUM.search(said):
        values = pb.DESCRIPTOR.pool.FindEnumTypeByName(f"velagen.triton.{unknown[1]}").values_by_name
        return Problem(f"unknown value {unknown[2]} of {unknown[1]}", place, f"one of {', '.join(values)}")
    return Problem(_MESSAGE.sub(lambda match: match[1], said), place)


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else ""
