"""A working directory for wrong uses, and what may be wrong with a machine."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from .board import Board
from .wrong_uses import FILES

SIZE = 16384  # Bytes of a disk; what there is of them is taken.


class Scene:
    """A folder with all files that wrong uses name; `close` undoes the rest.

    Attributes:
        folder: The working directory.
        board: A dashboard.
    """

    def __init__(self, folder: pathlib.Path, board: Board) -> None:
        self.folder, self.board = folder, board
        self._disk, self._process = folder / "disk", None
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode(errors="surrogateescape"))
            if name.endswith("_token"):
                path.chmod(0o600)

    def arguments(self, given: list[str]) -> list[str]:
        """What is given, with the places that only the scene knows."""
        for word, place in (("BOARD", self.board.address), ("HERE", str(self.folder))):
            given = [argument.replace(word, place) for argument in given]
        return given

    def tree(self) -> dict[str, bytes]:
        """All files, without what Python compiled."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }

    def mount(self, options: str) -> None:
        """Puts another file system at `disk`; for that one has to be root."""
        self._disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "pes", str(self._disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted: {done.stderr.strip()}")

    def fill(self) -> None:
        """A small disk, and nothing left of it."""
        self.mount(f"size={SIZE}")
        with (self._disk / "all").open("wb", buffering=0) as file:
            file.write(bytes(SIZE))

    def serve(self) -> None:
        """As if `pes up` had been here: a state file, and a process with its mark."""
        state = {"address": "http://127.0.0.1:8265", "token_file": "token"}
        state |= {"mark": "mark_of_a_test", "folder": str(self.folder)}
        (self.folder / "home").mkdir()
        (self.folder / "home" / "service.json").write_text(json.dumps(state))
        env = os.environ | {"PES_SERVICE": state["mark"]}
        command = [sys.executable, "-c", "print(flush=True); input()"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # It runs: it is seen by its mark.

    def close(self) -> None:
        """Leaves the machine as it was."""
        if os.path.ismount(self._disk):
            subprocess.run(["umount", str(self._disk)], check=True)
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
