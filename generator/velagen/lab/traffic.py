"""What demos send to a lab: requests at a rate that does not wait for answers, and models into its object store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import requests

from velagen.errors import Problem, VelagenError
from velagen.lab.api import Api, wait_until

#: Requests a second at most: clients, gateway and models share a laptop's cores.
MOST: Final = 100.0
#: Seconds after which it is asked again whether calls come.
_PAUSE: Final = 0.1
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
#: moto's server looks at the form of a signature, and takes any.
_SIGNED: Final = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=demo/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}


def local() -> requests.Session:
    """An HTTP client for this machine's loopback: no proxy of the environment stands between."""
    session = requests.Session()
    session.trust_env = False
    return session


@contextmanager
def open_loop(
    send: Callable[[], None], rate: Callable[[], float], *, longest: float, workers: int = 16
) -> Iterator[None]:
    """Call *send* at a rate while the block runs, whatever becomes of the calls.

    Args:
        rate: a second; it is asked before each call, so it may change. At 0 nothing is called.
        longest: seconds after which it ends by itself.
        workers: how many calls may be under way; more of them wait, and are made late.
    """
    stop = threading.Event()

    def clock(pool: ThreadPoolExecutor) -> None:
        start = at = time.perf_counter()
        while not stop.wait(max(0.0, at - time.perf_counter())) and at - start < longest:
            now = rate()
            if not now:
                at = time.perf_counter() + _PAUSE
                continue
            pool.submit(send)
            at += 1 / min(now, MOST)

    with ThreadPoolExecutor(workers) as pool:
        thread = threading.Thread(target=clock, args=(pool,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def here(address: str) -> str:
    """The address, where it is of this machine. Raises VelagenError: no demo sends requests to anybody else."""
    if urlsplit(address).hostname not in _LOOPBACK:
        raise VelagenError(Problem(f"requests are for a lab on this machine, and {address} is not on it"))
    return address


def put_model_file(store: str, name: str, content: str) -> None:
    """Put a file into the bucket ``models`` of a lab's object store, whose address is *store*.

    Raises VelagenError where the store refuses it.
    """
    answer = local().put(f"{store}/models/{name}", data=content.encode(), headers=_SIGNED, timeout=30)
    if not answer.ok:
        raise VelagenError(
            Problem(f"the lab's object store refused {name} ({answer.status_code}): {answer.text[:300]}")
        )


def remove_application(api: Api, name: str, namespace: str) -> None:
    """Remove what an earlier demo left.

    Raises TimeoutError where it does not go.
    """
    application = ("core.oam.dev/v1beta1", "Application")
    if api.get(*application, name, namespace) is not None:
        api.delete(*application, name, namespace)
        wait_until(
            lambda: api.get(*application, name, namespace) is None, what="the end of an earlier demo", timeout=180
        )


def python_model_config(model: str) -> str:
    """Triton's config.pbtxt of a model in Python with one number in, X, and one out, Y."""
    return f"""name: "{model}"
backend: "python"
max_batch_size: 8
input [{{ name: "X" data_type: TYPE_FP32 dims: [1] }}]
output [{{ name: "Y" data_type: TYPE_FP32 dims: [1] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
