"""How the daemons are asked over their own ports, and what their logs say."""
