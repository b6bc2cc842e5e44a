"""What is wrong with what the simulator was given. It imports nothing of velagen, so it has words of its own for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong, in a sentence for the person who wrote it."""

    message: str
    #: File, option or JSON pointer, as it is shown: ``sharing.yaml:3:1``, ``--gpu``, ``sharing.yaml (/sharing/mps)``.
    where: str = ""
    #: What to write instead.
    hint: str = ""

    def __str__(self) -> str:
        """One line, or two where there is a hint."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n    {self.hint}" if self.hint else head


class GpusimError(Exception):
    """Raised once, with everything that was found wrong."""

    def __init__(self, complaints: Complaint | Iterable[Complaint]) -> None:
        self.complaints: tuple[Complaint, ...] = (
            (complaints,) if isinstance(complaints, Complaint) else tuple(complaints)
        )
        super().__init__("\n".join(str(one) for one in self.complaints))
