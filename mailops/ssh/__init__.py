"""How a machine is spoken to: a connection to pinned keys alone, and the agent call, held to what it may say."""
