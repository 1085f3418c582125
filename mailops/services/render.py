"""Templates -> files: a folder under `templates/` is laid out as the machine is, path for path.

templates/postfix/any/etc/postfix/main.cf.j2 becomes /etc/postfix/main.cf; what has no .j2 is taken as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mailops import cache as kept

TEMPLATES = Path(__file__).parents[1] / "templates"
SUFFIX = ".j2"


def tree(folders: tuple[str, ...], names: Mapping[str, Any]) -> dict[str, bytes]:
    """Path on the machine -> content, sorted by path. A later folder's file replaces an earlier one's.

    A folder that does not exist counts as empty. Raises jinja2.UndefinedError for a name not in `names`.
    """
    sources: dict[str, Path] = {}
    for folder in folders:
        root = TEMPLATES / folder
        for source in root.rglob("*"):
            if source.is_file():
                sources["/" + source.relative_to(root).as_posix().removesuffix(SUFFIX)] = source
    return {path: _content(sources[path], names) for path in sorted(sources)}


def _content(source: Path, names: Mapping[str, Any]) -> bytes:
    if source.suffix != SUFFIX:
        return source.read_bytes()
    template = _environment(TEMPLATES).get_template(source.relative_to(TEMPLATES).as_posix())
    return str(template.render(names)).encode()


@cache
def _environment(templates: Path) -> Any:
    """Jinja2 for configuration files; what it compiles is kept for the next command."""
    import jinja2  # costs more than all the rest of a command's start

    class Bytecode(jinja2.FileSystemBytecodeCache):
        """A cache that cannot be read or written does no harm."""

        def load_bytecode(self, bucket: Any) -> None:
            try:
                super().load_bytecode(bucket)
            except Exception:  # whatever pickle makes of a damaged file
                bucket.reset()

        def dump_bytecode(self, bucket: Any) -> None:
            with contextlib.suppress(OSError):
                super().dump_bytecode(bucket)

    place = kept.folder("templates")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        bytecode_cache=Bytecode(str(place)) if place else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )
