"""How a change of files reaches the machine, or is undone; the states that were.

What a daemon has to be told or asked is in `services`.
"""
