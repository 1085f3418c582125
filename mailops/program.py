"""Where the scripts `fab` and `mailops` of an installation look for the command: they stay when the files move."""

from mailops.cli.program import fab, main

__all__ = ["fab", "main"]
