"""Where a model of an MLflow registry lies: from ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` to a modelUri.

By MLflow's REST API (mlflow/protos/model_registry.proto, service.proto), so that MLflow itself, 300 MB with what it
needs, is not a dependency. An alias moves; what it leads to now must not: an address that several versions share, that
a later one may be written over, or that only MLflow itself can read, is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from velagen.errors import Problem, VelagenError
from velagen.monitoring.prometheus import reason, without_password

SCHEME: Final = "models:/"
#: Seconds that a server may take for an answer.
PATIENCE: Final = 15.0
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_OK = range(200, 300)
#: What KServe's storage initializer fetches; the definition of kfserving has the same (SCHEMES).
SCHEMES: Final = ("s3", "gs", "hf", "oci", "oci+native", "pvc", "http", "https", "hdfs", "webhdfs", "file")
#: Those that a registry may name.
_FETCHED: Final = ("s3", "gs", "pvc", "hdfs", "webhdfs", "hf", "oci", "oci+native")
#: Last parts of a path that say "whatever is there now".
_MOVING: Final = frozenset(("latest", "current", "head", "main", "master", "champion", "staging", "production", "prod"))
_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, say who you are"
#: MLflow's own bound on the answers of a search.
_MOST_VERSIONS: Final = 200


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: str
    #: Where its files lie, for ``modelUri``.
    uri: str

    def __str__(self) -> str:
        """``sentiment, version 3``."""
        return f"{self.name}, version {self.version}"


def is_registered(model: str) -> bool:
    """Whether an address names a model of a registry, not a place."""
    return model.startswith("models:")


def resolve(model: str, tracking_uri: str | None = None) -> Version:
    """The version that a name of the registry leads to now, and where it lies.

    In: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; the server's address, else MLFLOW_TRACKING_URI. Raises
    VelagenError with a sentence: no such model, version or alias; a server that is not there, is not MLflow or refuses
    to answer; an address that KServe can't fetch from, or that does not stay what it is.
    """
    name, version, alias = _parts(model)
    address = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not address:
        hint = "name it with --tracking-uri or MLFLOW_TRACKING_URI, such as http://mlflow.example.com:5000"
        raise VelagenError(Problem(f"{model}: the address of the MLflow server is missing", hint=hint))
    server = _Server(_checked(address))
    path, asked = (
        ("registered-models/alias", {"alias": alias}) if alias else ("model-versions/get", {"version": version})
    )
    found = server.find(path, {"name": name, **asked}, model)
    if found is None:
        raise VelagenError(server.missing(name, version, alias))
    found = found["model_version"]
    version = str(found.get("version", version))
    status = str(found.get("status", "READY"))
    if status != "READY":
        said = f": {found['status_message']}" if found.get("status_message") else ""
        what = f"version {version} of {name} is not ready in the registry ({status}{said})"
        raise VelagenError(Problem(what, hint="register it again, or take another version"))
    uri = server.location(name, version)
    _refuse_what_moves(server, Version(name, version, uri))
    return Version(name, version, uri)


def _parts(model: str) -> tuple[str, str, str]:
    """Name, version and alias; one of the last two is empty."""
    hint = "write models:/NAME@ALIAS or models:/NAME/VERSION, such as models:/sentiment@champion"
    found = re.fullmatch(r"models:/+([^/@:\s]+)(?:@([^/@:\s]+)|/([^/@:\s]+))", model)
    if found is None:
        raise VelagenError(Problem(f"{model!r} names no version of a registered model", hint=hint))
    name, alias, version = found.groups(default="")
    if version and not re.fullmatch("[0-9]{1,18}", version):
        what = f"{model}: {version} is a stage, which may hold several versions" if version != "latest" else ""
        what = what or f"{model}: latest is whatever was registered last, approved by nobody"
        raise VelagenError(Problem(what, hint=hint))
    return name, version, alias


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        what = f"{without_password(address)!r} is not the address of an MLflow server"
        raise VelagenError(Problem(what, hint="velagen asks a server by HTTP: http://HOST:PORT"))
    return address.rstrip("/")


class _Server:
    """An MLflow server, asked by HTTP."""

    def __init__(self, address: str) -> None:
        import requests

        self._address = address
        self._session = requests.Session()
        token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
        if user:
            self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, parameters: Mapping[str, str], about: str) -> dict[str, Any]:
        """The answer to a question. Raises VelagenError in words, with *about* before them."""
        return self._asked(path, parameters, about, may_lack=False) or {}

    def _asked(self, path: str, parameters: Mapping[str, str], about: str, *, may_lack: bool) -> dict[str, Any] | None:
        import requests

        shown = without_password(self._address)
        try:
            answer = self._session.get(
                f"{self._address}/api/2.0/mlflow/{path}", params=parameters, timeout=PATIENCE, allow_redirects=False
            )
        except requests.Timeout as error:
            raise VelagenError(Problem(f"{about}the MLflow server {shown} did not answer in {PATIENCE:g} s")) from error
        except requests.RequestException as error:
            what = f"{about}the MLflow server {shown} is not there: {reason(error)}"
            raise VelagenError(Problem(what, hint="--tracking-uri or MLFLOW_TRACKING_URI says where it is")) from error
        if answer.status_code in (_UNAUTHORIZED, _FORBIDDEN):
            what = f"{about}the MLflow server {shown} does not let you read this ({answer.status_code})"
            raise VelagenError(Problem(what, hint=_CREDENTIALS))
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or (answer.status_code not in _OK and "error_code" not in found):
            what = f"{about}what answers at {shown} is not an MLflow server (status {answer.status_code})"
            raise VelagenError(Problem(what, hint="give its address without a path, or with the path of a proxy"))
        if may_lack and _is_lacking(found):
            return None
        if answer.status_code not in _OK:
            raise VelagenError(Problem(f"{about}{_sentence(str(found.get('message') or found['error_code']))}"))
        return found

    def find(self, path: str, parameters: Mapping[str, str], about: str) -> dict[str, Any] | None:
        """As `get`; None where the registry has no such thing."""
        return self._asked(path, parameters, f"{about}: ", may_lack=True)

    def missing(self, name: str, version: str, alias: str) -> Problem:
        """What there is in the place of what was asked for."""
        found = self.find("registered-models/get", {"name": name}, name)
        if found is None:
            return Problem(f"the registry has no model {name}", hint=f"{without_password(self._address)} was asked")
        if version:
            return Problem(f"the model {name} has no version {version} in the registry")
        aliases = {str(one["alias"]): str(one["version"]) for one in found["registered_model"].get("aliases") or ()}
        listed = ", ".join(f"{one} (version {number})" for one, number in sorted(aliases.items()))
        return Problem(f"the model {name} has no alias {alias} in the registry", hint=f"there is: {listed or 'none'}")

    def location(self, name: str, version: str) -> str:
        """Where a version's files lie, as the registry has it."""
        asked = {"name": name, "version": version}
        uri = str(self.get("model-versions/get-download-uri", asked, "").get("artifact_uri", ""))
        # MLflow 3 registers a logged model by its id.
        logged = re.fullmatch(r"models:/(m-[0-9a-zA-Z]+)(/.*)?", uri)
        if logged:
            about = f"version {version} of {name} is the logged model {logged[1]}: "
            model = self.get(f"logged-models/{logged[1]}", {}, about).get("model") or {}
            uri = str((model.get("info") or {}).get("artifact_uri", "")) + (logged[2] or "")
        return uri.rstrip("/")

    def sharing(self, found: Version) -> list[str]:
        """The other versions of the model whose files lie at the same place."""
        asked = {"filter": "name='" + found.name.replace("'", "''") + "'", "max_results": str(_MOST_VERSIONS)}
        versions = self.get("model-versions/search", asked, "").get("model_versions") or []
        others = [str(one["version"]) for one in versions if str(one["version"]) != found.version]
        sources = {str(one["version"]): str(one.get("source", "")).rstrip("/") for one in versions}
        own = sources.get(found.version)
        return sorted(other for other in others if own and sources[other] == own)


def _is_lacking(answer: Mapping[str, Any]) -> bool:
    """MLflow tells of an alias that is not there as of a wrong parameter (mlflow/store/model_registry)."""
    no_alias = re.search(r"alias \S+ not found", str(answer.get("message", "")))
    return answer.get("error_code") == "RESOURCE_DOES_NOT_EXIST" or bool(no_alias)


def _sentence(message: str) -> str:
    """MLflow's own words, as they stand inside a sentence."""
    words = " ".join(message.split()).rstrip(".")
    return f"MLflow says: {words}"


def _refuse_what_moves(server: _Server, found: Version) -> None:
    """Raise VelagenError where an address can't be fetched by KServe, or may hold another model tomorrow."""
    scheme, _, rest = found.uri.partition(":")
    last = rest.rstrip("/").rpartition("/")[2]
    what = hint = ""
    if scheme in ("mlflow-artifacts", "runs", "models", "dbfs"):
        what = "only MLflow can read that, KServe can't"
        hint = (
            "let the server keep artifacts in a store that KServe reaches (--default-artifact-root s3://... and "
            "--no-serve-artifacts), or bring them there: velagen model push"
        )
    elif scheme in ("wasbs", "abfss"):
        what, hint = (
            f"KServe has no {scheme}://",
            "Azure blobs are https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH",
        )
    elif "://" not in found.uri or scheme == "file":
        what = "that is a folder of the machine MLflow runs on"
        hint = "bring it to a store that KServe reaches: velagen model push"
    elif scheme not in _FETCHED and ".blob.core.windows.net/" not in rest:
        what, hint = "KServe can't fetch from there", "use s3://, gs://, hdfs://, pvc:// or an Azure blob's https://"
    elif scheme.startswith("oci") and "@sha256:" not in rest:
        what, hint = "a tag of an image moves", "register it by its digest: oci://REGISTRY/IMAGE@sha256:..."
    elif scheme == "hf" and not re.search(r":[0-9a-f]{40}$", rest):
        what, hint = "a repository of Hugging Face moves", "register it by its commit: hf://ORG/MODEL:COMMIT"
    elif last.lower() in _MOVING:
        what, hint = f"{last} is a name that moves", "register each version under a path of its own"
    else:
        others = server.sharing(found)
        if others:
            which = f"version {others[0]} lies" if len(others) == 1 else f"versions {', '.join(others)} lie"
            what = f"{which} there too, so it holds whichever came last"
            hint = "register each version under a path of its own"
    if what:
        raise VelagenError(Problem(f"{found} lies at {found.uri or 'no address'}: {what}", hint=hint))
