"""mailops: a mail server of one's own, run from a laptop over SSH."""

__version__ = "0.1.0"
