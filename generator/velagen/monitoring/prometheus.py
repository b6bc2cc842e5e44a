"""Asks Prometheus: one query at a time, now or over a stretch of time. The only module that does.

Source of the forms: Prometheus docs, querying/api. What is not a number (NaN, an infinity: 0/0 gives the one, a
histogram without a bound the other) is not an answer: it is left out, and over a stretch of time it is a gap.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn
from urllib.parse import urlsplit, urlunsplit

from velagen.errors import Problem, VelagenError

#: Brings a path below the server's address, with parameters: the answer's HTTP status and body. It raises OSError, or
#: TimeoutError, where there is no answer.
Transport = Callable[[str, Mapping[str, str]], tuple[int, bytes]]
Labels = dict[str, str]
#: Prometheus gives no more points of one series in one answer (web/api/v1/api.go, queryRange).
MOST_POINTS: Final = 11_000
#: Seconds.
PATIENCE: Final = 15.0
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _UNPROCESSABLE, _SERVER_ERROR = 400, 401, 403, 422, 500


class PrometheusError(VelagenError):
    """Prometheus did not answer, or not with numbers; says which of both, and what can be done.

    ``kind`` is ``unreachable`` (no answer, or none of a Prometheus), ``unavailable`` (it says that it can't now) or
    ``query`` (it says that the query is at fault).
    """

    def __init__(self, kind: Literal["unreachable", "unavailable", "query"], message: str, hint: str = "") -> None:
        self.kind = kind
        super().__init__(Problem(message, hint=hint))


@dataclass(frozen=True)
class Sample:
    """One value at one time."""

    labels: Labels
    value: float
    #: Seconds since 1970, by Prometheus' clock: when it was asked for, not when it was measured.
    at: float


@dataclass(frozen=True)
class Line:
    """A series over a stretch of time: one value for each time asked for, None where there is none."""

    labels: Labels
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Lines:
    """Series over the same times."""

    #: Seconds since 1970, evenly spaced.
    times: tuple[float, ...]
    lines: tuple[Line, ...]


class Prometheus:
    """One server. What it warns of (an answer that holds a part alone) is gathered in ``warnings``."""

    def __init__(self, address: str, transport: Transport | None = None) -> None:
        """Take the address of a server; a transport where it can't be reached directly.

        Raises VelagenError where it is not an address.
        """
        self._url = checked_address(address)
        self._transport = transport or _direct(self._url)
        self.warnings: dict[str, None] = {}

    @property
    def address(self) -> str:
        """For people: without a password."""
        return without_password(self._url)

    def instant(self, query: str, at: float | None = None) -> list[Sample]:
        """The query's value now, or at a time (seconds since 1970); a scalar has no labels.

        Raises PrometheusError.
        """
        parameters = {"query": query} | ({"time": f"{at:.3f}"} if at is not None else {})
        kind, result = self._ask("api/v1/query", parameters)
        match kind:
            case "vector":
                found = [(one["metric"], one["value"]) for one in result]
            case "scalar":
                found = [({}, result)]
            case _:
                raise PrometheusError("query", f"the query gives a {kind}, where numbers are wanted: {query}")
        samples = [Sample(labels, _number(value), float(time)) for labels, (time, value) in found]
        return [one for one in samples if math.isfinite(one.value)]

    def range(self, query: str, start: float, end: float, step: float) -> Lines:
        """The query's values from *start* to *end* (seconds since 1970), every *step* seconds.

        Raises PrometheusError, ValueError where these make no stretch of time, or too many points.
        """
        if step <= 0 or end < start:
            raise ValueError(f"no stretch of time: from {start} to {end} every {step} seconds")
        count = math.floor((end - start) / step + 1e-9) + 1
        if count > MOST_POINTS:
            raise ValueError(f"{count} points of a series, where Prometheus gives {MOST_POINTS}: take a longer step")
        parameters = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        kind, result = self._ask("api/v1/query_range", parameters)
        if kind != "matrix":
            raise PrometheusError("query", f"the query gives a {kind}, where series are wanted: {query}")
        lines = []
        for one in result:
            values: list[float | None] = [None] * count
            for time, value in one["values"]:
                place = round((float(time) - start) / step)
                if 0 <= place < count and math.isfinite(number := _number(value)):
                    values[place] = number
            lines.append(Line(one["metric"], tuple(values)))
        return Lines(tuple(start + step * place for place in range(count)), tuple(lines))

    def _ask(self, path: str, parameters: Mapping[str, str]) -> tuple[str, Any]:
        """The kind of the answer, and the answer."""
        try:
            status, body = self._transport(path, parameters)
        except TimeoutError as error:
            raise PrometheusError(
                "unreachable", f"Prometheus at {self.address} did not answer within {PATIENCE:.0f} s"
            ) from error
        except OSError as error:
            raise PrometheusError("unreachable", f"Prometheus at {self.address} does not answer: {error}") from error
        try:
            answer = json.loads(body)
            said = answer["status"]
        except (ValueError, KeyError, TypeError):
            self._no_prometheus(status, body)
        if said != "success":
            message = str(answer.get("error", "")) or f"status {status}"
            if status in (_BAD_REQUEST, _UNPROCESSABLE):
                raise PrometheusError("query", f"Prometheus refused the query: {message}", parameters["query"])
            raise PrometheusError("unavailable", f"Prometheus at {self.address} can't answer ({status}): {message}")
        self.warnings |= dict.fromkeys(answer.get("warnings") or ())
        return answer["data"]["resultType"], answer["data"]["result"]

    def _no_prometheus(self, status: int, body: bytes) -> NoReturn:
        """No JSON of Prometheus: what stands before it, or something else."""
        words = " ".join(re.sub("<[^>]*>", " ", body[:2000].decode(errors="replace")).split())[:200]
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise PrometheusError(
                "unreachable",
                f"Prometheus at {self.address} asks for credentials ({status})",
                "an address may hold them: http://USER:PASSWORD@HOST",
            )
        if status >= _SERVER_ERROR:
            raise PrometheusError("unavailable", f"Prometheus at {self.address} can't answer ({status}): {words}")
        raise PrometheusError(
            "unreachable",
            f"{self.address} answers, and not as a Prometheus ({status}): {words}",
            "is there a path before /api/v1, such as http://HOST/prometheus?",
        )


def checked_address(text: str) -> str:
    """The address of a server, without a slash at its end. Raises VelagenError where it is not an address."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, a bracket that is not closed
        good = False
    if not good or re.search(r"\s", text) or parts.query or parts.fragment:
        bare = re.fullmatch(r"[\w.-]+(:[0-9]+)?(/\S*)?", text)
        hint = f"write http://{text}" if bare else "write http://HOST:PORT"
        raise VelagenError(Problem(f"{without_password(text)!r} is not the address of a Prometheus", hint=hint))
    return text.rstrip("/")


def without_password(address: str) -> str:
    """An address as it may be shown."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return re.sub("//[^/]*@", "//", address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def quoted(text: str) -> str:
    """A text as PromQL writes it, for a matcher's right side."""
    return json.dumps(text, ensure_ascii=False)


def _number(text: str) -> float:
    return float(text.replace("Inf", "inf"))


def _direct(url: str) -> Transport:
    """By HTTP from this machine, with its own proxies and authorities."""
    import requests

    session = requests.Session()

    def get(path: str, parameters: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            answer = session.get(f"{url}/{path}", params=parameters, timeout=PATIENCE)
        except requests.Timeout as error:
            raise TimeoutError from error
        except requests.RequestException as error:
            raise OSError(reason(error)) from error
        return answer.status_code, answer.content

    return get


def reason(error: BaseException) -> str:
    """Why there was no answer, in words: libraries wrap the last cause several times."""
    found = re.search(r"\[Errno -?[0-9]+\] ([^'\")]+)|(certificate verify failed[^(\"]*)", str(error))
    if found:
        return (found[1] or found[2]).strip().lower()
    return "the name is not known" if "NameResolution" in str(error) else str(error)[:200]
