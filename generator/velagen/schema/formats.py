"""Formats: which are asserted, as what in CUE, and the same rule for Python, so that both give one verdict."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from velagen.cue import Binary, Expr, Ident, Lit, Package, Selector, Unary, absent, call
from velagen.schema.patterns import PatternError, matches, parse, to_re2

#: RFC 1123 labels, at most 253 characters; the length is a constraint of its own.
HOSTNAME = r"^[a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)*$"
#: RFC 5321 in its everyday part: a dot-atom, an @, a host name.
EMAIL = r"^[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\-]+(\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\-]+)*@" + HOSTNAME[1:]
#: RFC 3986, absolute: a scheme and only characters that a URI may hold, percent signs followed by two digits.
URI = r"^[a-zA-Z][a-zA-Z0-9+.\-]*:([a-zA-Z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9a-fA-F]{2})*$"
URI_REFERENCE = r"^([a-zA-Z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9a-fA-F]{2})*$"
UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
#: RFC 3339 appendix A.
_CLOCK = r"T(\d+H(\d+M(\d+S)?)?|\d+M(\d+S)?|\d+S)"
DURATION = rf"^P(\d+W|(\d+Y(\d+M(\d+D)?)?|\d+M(\d+D)?|\d+D)({_CLOCK})?|{_CLOCK})$"
IPV4 = r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$"


@dataclass(frozen=True)
class Format:
    """A format that is asserted: the same rule three times."""

    name: str
    #: What a value is, in words: "must be an e-mail address".
    words: str
    #: The CUE constraint on a string.
    cue: Expr
    #: Given a reference to a string, CUE expressions that are true when it fails.
    fails: Callable[[Expr], Expr]
    #: The rule in Python.
    holds: Callable[[str], bool]


def _by_pattern(name: str, words: str, pattern: str, holds: Callable[[str], bool] | None = None) -> Format:
    literal = Lit(to_re2(pattern), raw=True)
    return Format(
        name,
        words,
        Unary("=~", literal),
        lambda ref: Binary("!~", ref, literal),
        holds or (lambda text: matches(pattern, text)),
    )


def _by_unification(name: str, words: str, cue: Expr, holds: Callable[[str], bool]) -> Format:
    return Format(name, words, cue, lambda ref: absent(Binary("&", ref, cue)), holds)


_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return False
    year, month, day = (int(part) for part in text.split("-"))
    try:
        date(year or 2000, month, day)  # Go knows a year 0, which is a leap year; Python does not
    except ValueError:
        return False
    return True


def _is_date_time(text: str) -> bool:
    found = _DATE_TIME.fullmatch(text)
    return found is not None and _is_date(text[:10])


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_regex(text: str) -> bool:
    try:
        parse(text)
    except PatternError:
        return False
    return True


_TIME = Selector(Package("time"), "Time")
_IPV6 = Binary("&", Ident("string"), Selector(Package("net"), "IPv6"))
_MOMENT = "must be a date and time (2006-01-02T15:04:05Z)"

FORMATS: dict[str, Format] = {
    one.name: one
    for one in [
        _by_unification("date-time", _MOMENT, _TIME, _is_date_time),
        _by_unification("date", "must be a date (2006-01-02)", call("time", "Format", Lit("2006-01-02")), _is_date),
        _by_pattern("hostname", "must be a host name", HOSTNAME),
        _by_pattern("email", "must be an e-mail address", EMAIL),
        _by_pattern("uri", "must be a URI with a scheme", URI),
        _by_pattern("uri-reference", "must be a URI reference", URI_REFERENCE),
        _by_pattern("uuid", "must be a UUID", UUID),
        _by_pattern("duration", "must be an ISO 8601 duration (PT30S)", DURATION),
        _by_pattern("ipv4", "must be an IPv4 address", IPV4),
        _by_unification("ipv6", "must be an IPv6 address", _IPV6, _is_ipv6),
        _by_unification("regex", "must be a regular expression", Selector(Package("regexp"), "Valid"), _is_regex),
    ]
}  # fmt: skip
