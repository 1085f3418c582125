"""Mail domains, users and aliases: the database, and mailcfg's commands on it."""
