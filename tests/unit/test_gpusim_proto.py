from pathlib import Path
from types import ModuleType

import pytest

from velagen.gpusim import proto
from velagen.gpusim.proto import deviceplugin_pb2, podresources_pb2, regenerate

FOLDER = Path(proto.__file__).parent


def test_generated_files_are_those_of_the_proto_files(tmp_path: Path) -> None:
    regenerate.regenerate(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(f"{name}_pb2.{end}" for name in regenerate.NAMES for end in ("py", "pyi"))
    for name in written:
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), f"{name}: run regenerate.py"


def _kubelet_file(name: str) -> Path | None:
    """The kubelet's own .proto in the Go module cache, where the tools have been built."""
    found = sorted(Path.home().glob(f"go/pkg/mod/k8s.io/kubelet@v0.34.*/pkg/apis/{name}/api.proto"))
    return found[-1] if found else None


@pytest.mark.parametrize(
    ("api", "module"),
    [("deviceplugin/v1beta1", deviceplugin_pb2), ("podresources/v1", podresources_pb2)],
)
def test_wire_format_is_the_kubelets(api: str, module: ModuleType, tmp_path: Path) -> None:
    upstream = _kubelet_file(api)
    if upstream is None:
        pytest.skip("k8s.io/kubelet v0.34 is not in the Go module cache")
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    out = tmp_path / "set.bin"
    arguments = ["protoc", f"-I{upstream.parent}", f"--descriptor_set_out={out}", str(upstream)]
    assert protoc.main(arguments) == 0
    theirs = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    ours = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(ours)
    assert ours.package == theirs.package
    their_messages = {message.name: message for message in theirs.message_type}
    for message in ours.message_type:
        fields = {(f.name, f.number, f.type, f.label, f.type_name) for f in their_messages[message.name].field}
        mine = {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        assert mine <= fields, message.name
        if module is deviceplugin_pb2:
            assert mine == fields, message.name
    their_services = {service.name: service for service in theirs.service}
    for service in ours.service:
        methods = {
            (m.name, m.input_type, m.output_type, m.server_streaming) for m in their_services[service.name].method
        }
        assert {(m.name, m.input_type, m.output_type, m.server_streaming) for m in service.method} <= methods
