"""How machines are."""
