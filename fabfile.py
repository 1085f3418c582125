"""`fab` looks for this name; the tasks are in tasks.py."""

import sys

# Invoke has Python forget what it compiles, so that every module of ours would be compiled at every start.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from tasks import namespace  # noqa: E402, F401
