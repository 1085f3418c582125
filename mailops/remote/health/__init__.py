"""How the machine is, beyond what its daemons answer to a probe."""
