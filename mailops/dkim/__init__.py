"""DKIM: the keys on the mailhost, and their records in the DNS."""
