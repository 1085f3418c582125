"""Work that goes on while this thread does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(threading.Thread, Generic[T]):
    """Work that goes on while this thread does something else; `result` awaits it, or raises what it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # whoever asks for the result gets it
            self._error = error

    def result(self) -> T:
        self.join()
        if self._error:
            raise self._error
        return self._value
