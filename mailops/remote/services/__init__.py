"""How the daemons are asked over their own ports, and what their logs say.

When they are asked, and what follows from it, is decided in `changes` and `health`.
"""
