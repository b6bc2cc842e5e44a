"""Sends a sample to the model as often as asked; ends with 1, and says why, while it can't.

Runs inside the model server's container as its startup probe, with nothing but Python's library: the address that
answers once the model is loaded, the address to send to, how often, and the sample in JSON.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def call(address: str, body: bytes | None = None) -> None:
    """One request; raises OSError where it fails."""
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


def main(ready: str, infer: str, count: str, sample: str) -> str | None:
    """The sentence that says what went wrong, or None."""
    try:
        call(ready)
    except OSError as error:
        return f"the model is not loaded yet: {ready}: {error}"
    for number in range(1, int(count) + 1):
        try:
            call(infer, sample.encode())
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            return f"warm-up request {number} of {count} was answered {error.code}: {said}"
        except OSError as error:
            return f"warm-up request {number} of {count} failed: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
