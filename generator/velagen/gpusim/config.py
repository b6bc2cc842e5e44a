"""NVIDIA's device-plugin configuration file, version v1, read as the plugin reads it.

What the plugin refuses is refused here, with all reasons at once. What it reads and then ignores (custom resource
names, sharing
of some of the devices only) is ignored here too, with a warning, so that a file that works in the lab works on a
real node.
Source: NVIDIA/k8s-device-plugin v0.20.0, api/config/v1 and cmd/nvidia-device-plugin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

import yaml

from velagen.gpusim.errors import Complaint, GpusimError

PREFIX: Final = "nvidia.com/"
SHARED_SUFFIX: Final = ".shared"

MigStrategy = Literal["none", "single", "mixed"]
SharingStrategy = Literal["none", "time-slicing", "mps"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME = 63
_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
#: A GPU's index, a MIG index, a GPU's UUID, a MIG UUID (new form, then old form).
_DEVICE_REFERENCE = re.compile(rf"\d+|\d+:\d+|GPU-{_UUID}|MIG-{_UUID}|MIG-GPU-{_UUID}/\d+/\d+")

_FLAGS = {
    "migStrategy",
    "failOnInitError",
    "mpsRoot",
    "nvidiaDriverRoot",
    "nvidiaDevRoot",
    "gdrcopyEnabled",
    "gdsEnabled",
    "mofedEnabled",
    "useNodeFeatureAPI",
    "deviceDiscoveryStrategy",
    "plugin",
    "gfd",
}
_PLUGIN_FLAGS = {
    "passDeviceSpecs",
    "deviceListStrategy",
    "deviceIDStrategy",
    "cdiAnnotationPrefix",
    "nvidiaCTKPath",
    "containerDriverRoot",
    "sharedDevicesAllocationPolicy",
}


@dataclass(frozen=True)
class ReplicatedResource:
    """One entry of ``sharing.<strategy>.resources``: each device of ``name`` is advertised ``replicas`` times."""

    name: str
    replicas: int
    #: Name under which the shares are advertised; empty: the resource's own.
    rename: str = ""


@dataclass(frozen=True)
class Sharing:
    """The one sharing strategy in force on a node."""

    strategy: SharingStrategy = "none"
    resources: tuple[ReplicatedResource, ...] = ()
    #: Refuse a container that asks for more than one share.
    fail_requests_greater_than_one: bool = False

    def of(self, resource: str) -> ReplicatedResource | None:
        """How ``resource`` (full name) is shared, or None; as in the plugin, the first entry counts."""
        return next((entry for entry in self.resources if entry.name == resource), None)


@dataclass(frozen=True)
class Config:
    """What the simulator needs of the file."""

    mig_strategy: MigStrategy = "none"
    sharing: Sharing = field(default_factory=Sharing)
    device_list_strategies: tuple[str, ...] = ("envvar",)
    device_id_strategy: Literal["uuid", "index"] = "uuid"
    allocation_policy: Literal["distributed", "packed"] = "distributed"
    mps_root: str = "/run/nvidia/mps"
    #: Switches that set an environment variable to "enabled" in the container: NVIDIA_GDRCOPY, NVIDIA_GDS,
    #: NVIDIA_MOFED.
    extra_env: tuple[str, ...] = ()
    warnings: tuple[Complaint, ...] = ()


def load_config(path: Path) -> Config:
    """Read the file at ``path`` (YAML or JSON); GpusimError when it can't be read or the plugin would refuse it."""
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise GpusimError(Complaint(f"the configuration can't be read: {error}", str(path))) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path) if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"
        raise GpusimError(Complaint(f"invalid YAML: {getattr(error, 'problem', error)}", where)) from error
    return parse_config(document, origin=str(path))


def parse_config(document: object, *, origin: str = "<config>") -> Config:
    """Turn the parsed file into a `Config`; GpusimError with every reason for which the plugin would refuse it."""
    return _Reader(origin).config(document)


class _Reader:
    """Collects problems while it walks the document."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.errors: list[Complaint] = []
        self.warnings: list[Complaint] = []

    def config(self, document: object) -> Config:
        root = {} if document is None else self.mapping(document, "")
        if root.get("kind") == "ConfigMap":
            hint = "name a file with one of the configurations in its data (velagen gpu config --plain writes one)"
            raise GpusimError(Complaint("this is a ConfigMap, and no configuration itself", self.origin, hint))
        version = root.get("version", "v1") or "v1"
        if version != "v1":
            self.error("/version", f"unknown version {version!r}", "the plugin knows v1 only")
        self.unknown(root, {"version", "flags", "resources", "sharing", "imex"}, "")
        flags = self.mapping(root.get("flags") or {}, "/flags")
        self.unknown(flags, _FLAGS, "/flags")
        plugin = self.mapping(flags.get("plugin") or {}, "/flags/plugin")
        self.unknown(plugin, _PLUGIN_FLAGS, "/flags/plugin")
        if root.get("resources"):
            self.warn("/resources", "resource patterns and names of one's own are ignored, as the plugin ignores them")
        mig = self.choice(flags, "migStrategy", "/flags", ("none", "single", "mixed"), "none")
        mps_root = flags.get("mpsRoot", Config.mps_root)
        sharing = self.sharing(self.mapping(root.get("sharing") or {}, "/sharing"))
        if sharing.strategy == "mps":
            if mig == "mixed":
                self.error("/sharing/mps", "MPS can't be used with migStrategy mixed")
            if not isinstance(mps_root, str) or not mps_root:
                self.error("/flags/mpsRoot", "MPS needs mpsRoot")
        if plugin.get("passDeviceSpecs"):
            self.warn("/flags/plugin/passDeviceSpecs", "ignored: a simulated node has no device files")
        result = Config(
            mig_strategy=cast(MigStrategy, mig),
            sharing=sharing,
            device_list_strategies=self.device_lists(plugin),
            device_id_strategy=cast(
                Literal["uuid", "index"],
                self.choice(plugin, "deviceIDStrategy", "/flags/plugin", ("uuid", "index"), "uuid"),
            ),
            allocation_policy=cast(
                Literal["distributed", "packed"],
                self.choice(
                    plugin, "sharedDevicesAllocationPolicy", "/flags/plugin", ("distributed", "packed"), "distributed"
                ),
            ),
            mps_root=str(mps_root),
            extra_env=tuple(
                variable
                for flag, variable in (
                    ("gdrcopyEnabled", "NVIDIA_GDRCOPY"),
                    ("gdsEnabled", "NVIDIA_GDS"),
                    ("mofedEnabled", "NVIDIA_MOFED"),
                )
                if flags.get(flag) is True
            ),
            warnings=tuple(self.warnings),
        )
        if self.errors:
            raise GpusimError(self.errors)
        return result

    def device_lists(self, plugin: Mapping[str, object]) -> tuple[str, ...]:
        pointer = "/flags/plugin/deviceListStrategy"
        value = plugin.get("deviceListStrategy")
        if value is None:
            return ("envvar",)
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names:
            self.error(pointer, f"must be a name or a list of names, not {value!r}")
            return ()
        for name in names:
            if name in ("cdi-annotations", "cdi-cri"):
                self.error(pointer, f"{name} needs a CDI specification of real devices", "use envvar or volume-mounts")
            elif name not in ("envvar", "volume-mounts"):
                self.error(pointer, f"unknown strategy {name!r}")
        return tuple(str(name) for name in names)

    def sharing(self, sharing: Mapping[str, object]) -> Sharing:
        self.unknown(sharing, {"timeSlicing", "mps"}, "/sharing")
        sliced = self.strategy(sharing.get("timeSlicing"), "/sharing/timeSlicing", "time-slicing", fail_default=False)
        # More than one MPS share is refused unless the file says otherwise; for time slicing it is the other way round.
        mps = self.strategy(sharing.get("mps"), "/sharing/mps", "mps", fail_default=True)
        if mps and sliced:
            self.warn("/sharing/timeSlicing", "ignored: MPS is configured too, and one node has one strategy")
        return mps or sliced or Sharing()

    def strategy(self, value: object, pointer: str, name: SharingStrategy, *, fail_default: bool) -> Sharing | None:
        if value is None:
            return None
        table = self.mapping(value, pointer)
        self.unknown(table, {"renameByDefault", "failRequestsGreaterThanOne", "resources"}, pointer)
        rename = self.boolean(table, "renameByDefault", pointer, default=False)
        fail = self.boolean(table, "failRequestsGreaterThanOne", pointer, default=fail_default)
        entries = table.get("resources")
        if not isinstance(entries, list) or not entries:
            self.error(f"{pointer}/resources", "no resources specified")
            return Sharing(name)
        resources = [
            resource
            for index, entry in enumerate(entries)
            if (resource := self.resource(entry, f"{pointer}/resources/{index}", rename=rename)) is not None
        ]
        return Sharing(name, tuple(resources), fail)

    def resource(self, value: object, pointer: str, *, rename: bool) -> ReplicatedResource | None:
        table = self.mapping(value, pointer)
        self.unknown(table, {"name", "rename", "devices", "replicas"}, pointer)
        name = self.resource_name(table.get("name"), f"{pointer}/name")
        replicas = table.get("replicas")
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            self.error(f"{pointer}/replicas", "no number of replicas specified")
        elif replicas < 2:
            self.error(f"{pointer}/replicas", "the number of replicas must be 2 or more")
        self.devices(table.get("devices", "all"), f"{pointer}/devices")
        if table.get("rename"):
            chosen = self.resource_name(table["rename"], f"{pointer}/rename")
            if chosen is not None and name is not None and not (rename and chosen == name + SHARED_SUFFIX):
                self.warn(
                    f"{pointer}/rename",
                    "names of one's own are ignored, as the plugin ignores them",
                    "renameByDefault: true gives the name the suffix .shared",
                )
        if name is None or not isinstance(replicas, int):
            return None
        return ReplicatedResource(name, replicas, name + SHARED_SUFFIX if rename else "")

    def devices(self, value: object, pointer: str) -> None:
        if value == "all":
            return
        if isinstance(value, int) and not isinstance(value, bool):
            if value <= 0:
                self.error(pointer, "a count of devices must be more than 0")
                return
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, bool) or not _DEVICE_REFERENCE.fullmatch(str(item)):
                    self.error(f"{pointer}/{index}", f"{item!r} is not a GPU index, MIG index or UUID")
                    return
        else:
            self.error(pointer, 'must be "all", a count or a list of devices')
            return
        self.warn(pointer, "sharing only some of the devices is ignored, as the plugin ignores it: all are shared")

    def resource_name(self, value: object, pointer: str) -> str | None:
        if not isinstance(value, str) or not value:
            self.error(pointer, "no resource name specified")
            return None
        full = value if value.startswith(PREFIX) else PREFIX + value
        if len(full) > _MAX_NAME or not _NAME.fullmatch(full.removeprefix(PREFIX)):
            self.error(
                pointer,
                f"{full!r} is not a valid resource name",
                "lower case, digits, '-' and '.', 63 characters in all",
            )
            return None
        return full

    def choice(
        self, table: Mapping[str, object], key: str, pointer: str, allowed: tuple[str, ...], default: str
    ) -> str:
        value = table.get(key)
        if value is None:
            return default
        if value not in allowed:
            self.error(f"{pointer}/{key}", f"{value!r} is not one of {', '.join(allowed)}")
            return default
        return str(value)

    def boolean(self, table: Mapping[str, object], key: str, pointer: str, *, default: bool) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self.error(f"{pointer}/{key}", f"must be true or false, not {value!r}")
            return default
        return value

    def mapping(self, value: object, pointer: str) -> dict[str, object]:
        if isinstance(value, dict):
            return {str(key): item for key, item in value.items()}
        self.error(pointer, f"must be a mapping, not {type(value).__name__}")
        return {}

    def unknown(self, table: Mapping[str, object], known: set[str], pointer: str) -> None:
        for key in table:
            if key not in known:
                self.warn(f"{pointer}/{key}", "unknown, and the plugin ignores what it does not know")

    def error(self, pointer: str, message: str, hint: str = "") -> None:
        self.errors.append(Complaint(message, f"{self.origin} ({pointer or '/'})", hint))

    def warn(self, pointer: str, message: str, hint: str = "") -> None:
        self.warnings.append(Complaint(message, f"{self.origin} ({pointer or '/'})", hint))
