"""Debian as it is: files, packages, users, units, ports; nothing here knows what mailops wants."""
