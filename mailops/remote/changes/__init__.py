"""How a change of files reaches the machine, or is undone; the states that were."""
