"""What is written down of a kind cluster: enough to find and remove it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from velagen.lab.home import write_state
from velagen.lab.kind.engine import Engine
from velagen.lab.kind.options import KindOptions


@dataclass
class KindState:
    """One cluster."""

    cluster: str
    options: KindOptions
    engine: Engine
    ports: dict[str, int]
    #: Whether images are assembled here.
    assembled: bool = True
    #: What was brought to an engine that is not ours, to be taken away again.
    brought: list[str] = field(default_factory=list)
    #: How long each layer took to come up.
    seconds: dict[str, float] = field(default_factory=dict)
    ready: bool = False

    def write(self, path: Path) -> None:
        """Write it to a file that only its owner can read."""
        write_state(path, {**asdict(self), "engine": self.engine.as_data()})

    @classmethod
    def read(cls, path: Path) -> KindState | None:
        """Give what was written down; None where there is nothing, or something no version of ours wrote."""
        try:
            data = json.loads(path.read_text())
            options = data.pop("options")
            for key in {"layers", "gpus"} & set(options):
                options[key] = tuple(options[key])
            engine = Engine.from_data(data.pop("engine"))
            # Before there was a choice it was 1.10.9.
            return cls(options=KindOptions(**{"kubevela": "1.10.9", **options}), engine=engine, **data)
        except (OSError, ValueError, KeyError, TypeError):
            return None
