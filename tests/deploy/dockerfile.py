"""Reads a Dockerfile as far as ours needs it: stages, instructions, their words."""

import dataclasses
import re
import shlex
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        word: FROM, RUN, COPY...
        text: What follows, its lines joined.
    """

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of the text, quotes taken off."""
        return shlex.split(self.text)


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a file, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(kept))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(word.upper(), text) for word, text in found]


def stages(path: Path) -> list[list[Instruction]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[Instruction]] = []
    for instruction in instructions(path):
        if instruction.word == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found
