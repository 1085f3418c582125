"""Templates -> files: a folder under `templates/` is laid out as the machine is, path for path.

templates/mailhost/etc/postfix/main.cf.j2 becomes /etc/postfix/main.cf; what has no .j2 is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
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
    import jinja2  # costs more than all the rest of a command's start

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )
    return environment.from_string(source.read_text(encoding="utf-8")).render(names).encode()
