"""The vault: made, opened, closed, and who owns what in it."""
