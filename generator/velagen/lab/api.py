"""A thin client of the lab's API server: server-side apply, get, delete, wait."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

from velagen.errors import Problem, VelagenError

#: Name under which the lab owns fields it applies.
MANAGER = "velagen-lab"
_TIMEOUT = 30.0
#: Answers that mean "not yet": a CRD just made, a webhook's server starting, an overloaded API server.
_RETRY = {404, 429, 500, 502, 503, 504}


class ApiError(Exception):
    """The API server said no. `status` is the HTTP code; the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class _Resource:
    plural: str
    namespaced: bool


class Api:
    """Talks to one API server. Safe for several threads."""

    def __init__(self, server: str, token: str, ca: Path) -> None:
        """Take the address, a bearer token and the file of the authority that signed the server's certificate."""
        self.server = server
        self._session = requests.Session()
        # Without this REQUESTS_CA_BUNDLE and the proxy variables of the environment would win over what is set here.
        self._session.trust_env = False
        self._session.verify = str(ca)
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=32))
        self._known: dict[tuple[str, str], _Resource] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Api:
        """Make a client from a kubeconfig the lab wrote."""
        config = yaml.safe_load(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        return cls(cluster["server"], config["users"][0]["user"]["token"], Path(cluster["certificate-authority"]))

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send one request.

        Args:
            path: from ``/api`` or ``/apis`` on.

        Returns:
            the answer, parsed where it is JSON.

        Raises:
            ApiError: the server answered with an error.
            requests.RequestException: it didn't answer.
        """
        answer = self._session.request(method, self.server + path, timeout=_TIMEOUT, **options)
        body: Any = answer.text
        if "json" in answer.headers.get("Content-Type", ""):
            body = answer.json()
        if not answer.ok:
            message = body.get("message", answer.reason) if isinstance(body, dict) else f"{answer.reason}: {body[:300]}"
            raise ApiError(answer.status_code, str(message))
        return body

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the server knows a kind."""
        try:
            self._resource(api_version, kind)
        except (LookupError, ApiError):
            return False
        return True

    def path(self, api_version: str, kind: str, name: str | None = None, namespace: str | None = None) -> str:
        """Give the path of an object, or of the collection without a name; all namespaces without a namespace.

        Raises:
            LookupError: the server does not know the kind.
        """
        resource = self._resource(api_version, kind)
        path = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        if resource.namespaced and (namespace or name):
            path += f"/namespaces/{namespace or 'default'}"
        path += f"/{resource.plural}"
        return f"{path}/{name}" if name else path

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Give an object; None where it (or its kind) is not there."""
        try:
            found: dict[str, Any] = self.request("GET", self.path(api_version, kind, name, namespace))
        except LookupError:
            return None
        except ApiError as error:
            if error.status == requests.codes.not_found:
                return None
            raise
        return found

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, *, selector: str = ""
    ) -> list[dict[str, Any]]:
        """Give all objects of a kind, of one namespace or of all; empty where the kind is not there."""
        try:
            path = self.path(api_version, kind)
        except LookupError:
            return []
        if namespace and self._resource(api_version, kind).namespaced:
            head, _, plural = path.rpartition("/")
            path = f"{head}/namespaces/{namespace}/{plural}"
        items = self.request("GET", path, params={"labelSelector": selector})["items"]
        # A list says once what its items are; alone they must say it themselves.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in items]

    def apply(self, thing: Mapping[str, Any], *, dry_run: bool = False, patience: float = 15.0) -> dict[str, Any]:
        """Apply an object, server side, taking over fields others own.

        Args:
            patience: seconds to go on trying while the server says "not yet".

        Raises:
            ApiError: refused.
        """
        metadata = thing["metadata"]
        params = {"fieldManager": MANAGER, "force": "true"}
        if dry_run:
            params["dryRun"] = "All"
        deadline = time.monotonic() + patience
        while True:
            try:
                path = self.path(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace"))
                done: dict[str, Any] = self.request(
                    "PATCH",
                    path,
                    params=params,
                    headers={"Content-Type": "application/apply-patch+yaml"},
                    data=json.dumps(thing).encode(),
                )
            except (LookupError, ApiError, requests.ConnectionError) as error:
                if time.monotonic() > deadline or (isinstance(error, ApiError) and error.status not in _RETRY):
                    raise
                time.sleep(0.15)
            else:
                return done

    def create(self, thing: Mapping[str, Any]) -> None:
        """Create an object, or apply it where it is there already. Creating is the cheaper of the two for a big CRD.

        Raises:
            ApiError: refused.
        """
        metadata = thing["metadata"]
        path = self.path(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace"))
        try:
            self.request("POST", path.rpartition("/")[0], params={"fieldManager": MANAGER}, json=thing)
        except ApiError as error:
            if error.status != requests.codes.conflict:
                raise
            self.apply(thing)

    def apply_all(self, things: Iterable[Mapping[str, Any]], *, workers: int = 6, fresh: bool = False) -> None:
        """Apply objects side by side; their order says nothing.

        Args:
            fresh: they are most likely not there yet: `create` them.

        Raises:
            VelagenError: with one problem for each that was refused.
        """

        def one(thing: Mapping[str, Any]) -> Problem | None:
            try:
                (self.create if fresh else self.apply)(thing)
            except (LookupError, ApiError, requests.RequestException) as error:
                return Problem(f"{thing['kind']} {thing['metadata']['name']}: {error}")
            return None

        with ThreadPoolExecutor(workers) as pool:
            problems = [problem for problem in pool.map(one, things) if problem]
        if problems:
            raise VelagenError(problems)

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> bool:
        """Delete an object in the background. Gives False where it was not there."""
        try:
            self.request(
                "DELETE", self.path(api_version, kind, name, namespace), params={"propagationPolicy": "Background"}
            )
        except LookupError:
            return False
        except ApiError as error:
            if error.status == requests.codes.not_found:
                return False
            raise
        return True

    def _resource(self, api_version: str, kind: str) -> _Resource:
        with self._lock:
            known = self._known.get((api_version, kind))
        if known:
            return known
        path = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        try:
            answer = self.request("GET", path)
        except ApiError as error:
            if error.status == requests.codes.not_found:
                raise LookupError(f"the server does not know {api_version}") from error
            raise
        with self._lock:
            for entry in answer["resources"]:
                if "/" not in entry["name"]:
                    self._known[api_version, entry["kind"]] = _Resource(entry["name"], entry["namespaced"])
            known = self._known.get((api_version, kind))
        if known is None:
            raise LookupError(f"the server does not know {api_version} {kind}")
        return known


_T = TypeVar("_T")


def wait_until(look: Callable[[], _T], *, what: str, timeout: float, every: float = 0.1) -> _T:
    """Look until the answer is true.

    Args:
        what: what is waited for, for the message.
        timeout: seconds.

    Returns:
        the first true answer.

    Raises:
        TimeoutError: it didn't become true.
    """
    deadline = time.monotonic() + timeout
    while True:
        if answer := look():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(every)


def condition(thing: Mapping[str, Any] | None, name: str) -> str:
    """Give the status of a condition of an object: ``True``, ``False``, ``Unknown``, or empty where it has none."""
    for entry in ((thing or {}).get("status") or {}).get("conditions") or ():
        if entry.get("type") == name:
            return str(entry.get("status", ""))
    return ""
