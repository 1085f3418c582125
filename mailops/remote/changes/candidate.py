"""The state that a manifest asks for, path by path, and how it differs from what is there.

Most of a file comes from the laptop (its base); the administrator's own additions to it lie on this machine
(`File.local`), and the file is made of both here.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from .. import machine
from ..machine import MANIFEST
from ..shared.errors import AgentError
from ..system.files import Change, digest, ids, observe, read, same
from . import generations

if TYPE_CHECKING:
    from ..shared.calls import Link
    from ..shared.forms import File, Files, Found, Generation, Manifest, State

Reachable = Callable[[str], bool]


class Candidate:
    """What each managed path should be (`files`), the paths that differ from it (`changes`), and the contents."""

    def __init__(
        self,
        wanted: Manifest,
        active: Generation,
        link: Link,
        reachable: Reachable,
        contents: dict[str, bytes] | None = None,
    ) -> None:
        self.active = active
        # By digest: what came from the laptop, now or before, or was made here; not in store yet.
        self.contents = dict(contents or {})
        self.locals = {file["local"]: read(file["local"]) for file in wanted["files"] if file.get("local")}
        self.now = {file["path"]: observe(file["path"]) for file in wanted["files"] if reachable(file["path"])}
        files = [file for file in wanted["files"] if file["path"] in self.now]
        self._fetch([file for file in files if self._lacks(file)], link)
        # What cannot be seen while the vault is locked stays as the active generation has it.
        hidden = {path: state for path, state in active["files"].items() if not reachable(path)}
        self.files: dict[str, State] = hidden | {file["path"]: self._target(file) for file in files}
        self.released = self._released({file["path"] for file in wanted["files"]} | {MANIFEST}, reachable)
        self._add_manifest(wanted)
        targets = {path: self.files[path] for path in self.now if path in self.files} | self.released
        self.changes = {path: state for path, state in targets.items() if self._is_news(path, state)}
        for path, state in self.changes.items():  # of which the mode alone differs, or nothing any more
            if state and "sha256" in state and state["sha256"] == (self.now[path] or {}).get("sha256"):
                self.contents.setdefault(state["sha256"], read(path))
        if strange := [path for path in self.changes if "other" in (self.now[path] or {})]:
            raise AgentError(f"{strange[0]} is not a file on this machine", "move away what stands there")

    def content(self, state: State) -> bytes:
        """What a state of `files` or `released` says; AgentError when that is not here."""
        found = self.contents.get(state["sha256"] if state else "")
        kept = generations.content(state) if found is None else found
        if kept is None:
            raise AgentError("a content that was to be written is not here; run it again")
        return kept

    def change(self, paths: Collection[str]) -> Change:
        return Change({p: self.now[p] for p in paths}, {p: self.changes[p] for p in paths}, self.content)

    def edited(self) -> list[str]:
        """The paths among the changes that somebody else has changed since mailops wrote them, to something else."""
        written = self.active["files"]
        return [
            path
            for path, state in self.changes.items()
            if path in written and path != MANIFEST and self.now[path]
            if not same(self.now[path], written[path]) and not same(self.now[path], state)
        ]

    def _is_news(self, path: str, state: State) -> bool:
        """Whether a path is to be changed; or was, by somebody who wants the same, and whom no daemon has told yet
        what it thinks of it."""
        written = self.active["files"]
        adopted = path in written and path in self.files and path != MANIFEST and not same(written[path], state)
        return adopted or not same(self.now[path], state)

    def record(self) -> Files:
        """The part of a generation's record that says what is where."""
        digests = {path: digest(text) for path, text in self.locals.items() if text}
        return {"files": self.files, "locals": digests}

    def _lacks(self, file: File) -> bool:
        """Whether the base has to come from the laptop: it is needed, and not kept here."""
        now = self.now[file["path"]]
        needed = self.locals.get(file.get("local", "")) or not now or now.get("sha256") != file["sha256"]
        return (
            bool(needed)
            and file["sha256"] not in self.contents
            and generations.content({"sha256": file["sha256"]}) is None
        )

    def _fetch(self, files: list[File], link: Link) -> None:
        if not files:
            return
        answer = link.ask("files", [file["path"] for file in files])
        for file in files:
            content = base64.b64decode(answer[file["path"]])
            if digest(content) != file["sha256"]:
                raise AgentError(f"{file['path']} did not arrive as it was promised; nothing was written")
            self.contents[file["sha256"]] = content

    def _target(self, file: File) -> State:
        state: Found = {"sha256": file["sha256"], "mode": file["mode"], "secret": file["secret"]}
        if addition := self.locals.get(file.get("local", "")):
            from . import additions

            source = file["local"]
            content = additions.merged(self.content({"sha256": file["sha256"]}), addition, file["merge"], source)
            self.contents[digest(content)] = content
            state |= {"sha256": digest(content), "base": file["sha256"], "local": source}
            mode = os.stat(source).st_mode
            state["mode"] = additions.mode(file["mode"], mode, file["merge"], source)
            state["secret"] |= not mode & 0o004  # what others may not read there shows in no diff either
        try:
            state["uid"], state["gid"] = ids(file["owner"], file["group"])
        except AgentError:  # the account comes with a package that is not installed yet
            state["uid"] = state["gid"] = -1
        return state

    def _released(self, wanted: set[str], reachable: Reachable) -> dict[str, State]:
        """Paths that mailops gives up go back to what they were before; an edited one is its editor's."""
        given_up = [path for path in self.active["files"] if path not in wanted and reachable(path)]
        origins = generations.origins() if given_up else {}
        self.now |= {path: observe(path) for path in given_up}
        return {path: origins.get(path) for path in given_up if same(self.now[path], self.active["files"][path])}

    def _add_manifest(self, wanted: Manifest) -> None:
        """The manifest itself is a file of the generation: what reads it finds the one that the files are of.

        Without the people in it, whose place is the vault: of the accounts, where they are is enough.
        """
        accounts = {"database": machine.database(wanted)} if wanted.get("accounts") else None
        content = json.dumps(wanted | {"accounts": accounts}, indent=1, sort_keys=True).encode()
        self.contents[digest(content)] = content
        self.now[MANIFEST] = observe(MANIFEST)
        self.files[MANIFEST] = {"sha256": digest(content), "mode": 0o600, "uid": 0, "gid": 0, "secret": True}
