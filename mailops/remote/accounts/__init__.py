"""Mail domains, users and aliases: the database, and mailcfg's commands on it.

What an address is lies in `shared`, how daemons read the database in the templates.
"""
