"""Write ``*_pb2.py`` and ``*_pb2.pyi`` anew from the .proto file: ``python regenerate.py [FOLDER]``.

Needs grpcio-tools (a development dependency). tests/unit/test_model_triton.py holds the committed files to its output.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("triton_config",)


def regenerate(folder: Path) -> None:
    """Write the generated modules into ``folder``; RuntimeError when the compiler refuses a file."""
    from grpc_tools import protoc

    for name in NAMES:
        arguments = [
            "protoc",
            f"-I{HERE}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            str(HERE / f"{name}.proto"),
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc refused {name}.proto")


if __name__ == "__main__":
    regenerate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
