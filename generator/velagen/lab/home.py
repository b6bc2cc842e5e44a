"""What every lab is, whatever it runs: a name, a folder that holds its state, a kubeconfig."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from velagen.errors import Problem, VelagenError
from velagen.lab import folder as folders
from velagen.lab.api import Api
from velagen.tools import cache_dir
from velagen.tools.report import Reporter


class LabHome:
    """The part that the embedded and the kind lab share; nothing starts here."""

    #: Folder under velagen's cache that holds the labs of this kind.
    _UNDER: str
    #: Characters a name may have: it becomes part of other things' names.
    _LONGEST: int
    #: What messages, and the mark in its folder, call it.
    _CALLED: str
    #: What it makes in its folder, as `velagen.lab.folder.clear` takes it: nothing else is ever removed there.
    _MADE: tuple[str, ...]
    #: What `velagen lab` needs to be told that it is one of this kind.
    _FLAGS: str = ""

    def __init__(self, name: str, folder: Path | None, reporter: Reporter | None) -> None:
        """Name a lab.

        Args:
            name: lower-case letters, digits and dashes.
            folder: where its state is; None = in velagen's cache folder.

        Raises:
            VelagenError: the name has other characters, or too many.
        """
        if len(name) > self._LONGEST or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            raise VelagenError(
                Problem(f"{name!r} is not a valid lab name", hint="Lower-case letters, digits and dashes.")
            )
        self.name = name
        self.folder = (folder or cache_dir() / self._UNDER / name).absolute()
        self.reporter = reporter or Reporter()
        self._state_file = self.folder / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig; exists once the lab is up."""
        return self.folder / "kubeconfig"

    @property
    def api(self) -> Api:
        """A client of the lab's API server.

        Raises:
            VelagenError: the lab is not up.
        """
        if not self.kubeconfig.is_file():
            raise VelagenError(Problem(f"{self._CALLED} {self.name} is not up", hint=self._how_up()))
        return Api.from_kubeconfig(self.kubeconfig)

    def down(self) -> bool:
        """Stop the lab and remove what it made; its folder too, if nothing else is in it.

        Safe after a crash, and twice. A folder that is not a lab's is left as it is.

        Returns:
            whether there was a lab.

        Raises:
            VelagenError: the folder is that of a lab of the other kind, or something can't be stopped.
        """
        if not self._owned():
            if folders.owner(self.folder) is not None:
                folders.refuse_foreign(self.folder)
            return False
        with self._locked():
            if not self._owned():  # somebody else took it down meanwhile
                return False
            there = self._state_file.exists()
            self._remove()
            stays = folders.clear(self.folder, self._MADE, forget=True)
        if stays:
            self.reporter.say(f"{self.folder} stays: it still holds {', '.join(stays)}")
        return there

    def check_folder(self) -> None:
        """Make sure that the lab may use its folder.

        Raises:
            VelagenError: it holds files and is not the folder of such a lab.
        """
        if not self._owned():
            folders.refuse_foreign(self.folder)

    def _owned(self) -> bool:
        known = folders.owner(self.folder)
        # Before there were marks a lab was known by what it had written down.
        return known == self._CALLED if known is not None else self._written_down()

    def _written_down(self) -> bool:
        """Whether the folder holds a state that such a lab wrote."""
        raise NotImplementedError

    def _claim(self) -> None:
        self.check_folder()
        folders.claim(self.folder, self._CALLED)

    def _remove(self) -> None:
        """Stop all that runs; what is in the folder may go too."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Beside the folder, which is removed as a whole.
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.with_name(f".{self.folder.name}.lock")):
            yield

    def _command(self, verb: str) -> str:
        default = cache_dir() / self._UNDER / self.name
        where = "" if self.folder == default.absolute() else f" --dir {self.folder}"
        named = "" if self.name == "default" else f" --name {self.name}"
        return f"velagen lab {verb}{self._FLAGS}{named}{where}"

    def _how_up(self) -> str:
        return f"Start it with: {self._command('up')}"

    def _refused(self, have: Any, want: Any) -> VelagenError:
        """Give the error for options, of the same dataclass, that are not those the lab runs with."""
        differences = ", ".join(
            f"{item.name}: {getattr(have, item.name)!r}, not {getattr(want, item.name)!r}"
            for item in fields(have)
            if getattr(have, item.name) != getattr(want, item.name)
        )
        return VelagenError(
            Problem(
                f"{self._CALLED} {self.name} already runs with other options ({differences})",
                hint=f"Take it down first: {self._command('down')}",
            )
        )


def write_state(path: Path, data: Mapping[str, object]) -> None:
    """Put a lab's state on disk whole, for its owner alone."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1))
    part.chmod(0o600)
    part.replace(path)
