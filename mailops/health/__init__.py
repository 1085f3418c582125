"""How machines are.

Nothing here changes a machine.
"""
