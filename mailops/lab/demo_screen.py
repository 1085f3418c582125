"""What the person at the demo sees: headings, commands and what they really print; and a picture of it all."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 124  # columns of the picture
RECOVERY_KEY = re.compile(r"([0-9a-f]{8}-){7}[0-9a-f]{8}")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A picture that is shown on a web page may load nothing from elsewhere: the reader's own font will do.
PLAIN_SVG = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Screen:
    """Prints to the terminal and, when there is to be a picture, to a recording console as well."""

    def __init__(self, picture: Path | None = None) -> None:
        self.path = picture
        self.picture = Console(record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, highlight=False)
        self.terminal = Console(highlight=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        self._print(Text(f"\n{text}", "bold cyan"))

    def note(self, text: str) -> None:
        self._print(Text(text, "dim"))

    def seen(self, text: str) -> None:
        """Something that was claimed, and was looked at just now."""
        self._print(Text.assemble(("✓ ", "green"), text))

    def command(self, text: str, prompt: str = "$") -> None:
        self._print(Text.assemble((f"{prompt} ", "green"), (text, "bold")))

    def output(self, text: str) -> None:
        """What a command printed."""
        for line in final_lines(text):
            self._print(Text.from_ansi(line))

    def run(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
        """Run a command of this computer, its output shown as it comes; returns its status and that output.

        It gets a terminal when we have one. It dies with us, however that is.
        """
        terminal = sys.stdout.isatty()
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.terminal.width, 0, 0))
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=env,
            cwd=cwd,
        )
        os.close(theirs)
        lines = final_lines(self._copy(ours))
        for line in lines:
            self.picture.print(Text.from_ansi(RECOVERY_KEY.sub("(left out of the picture)", line)))
        return process.wait(), CONTROL.sub("", "\n".join(lines))

    def save(self) -> None:
        if self.path:
            svg = self.picture.export_svg(title="script/demo", code_format=PLAIN_SVG)
            self.path.write_text(svg, encoding="utf-8")

    def _copy(self, source: int) -> str:
        """Everything that comes from `source`, passed on while it comes."""
        data = b""
        sys.stdout.flush()
        with suppress(OSError):  # EIO: a terminal whose other end was closed
            while chunk := os.read(source, 65536):
                data += chunk
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        os.close(source)
        return data.decode(errors="replace")

    def _print(self, text: Text) -> None:
        self.terminal.print(text)
        self.picture.print(text)


def final_lines(text: str) -> list[str]:
    """The lines of a terminal's output as they stand in the end: a line that was written over is gone."""
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1].removeprefix("\x1b[K") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
