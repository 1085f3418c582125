"""How the machine is, beyond what its daemons answer to a probe.

Nothing here changes the machine; a question to a daemon is in `services`.
"""
