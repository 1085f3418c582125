"""DKIM: the keys on the mailhost, and their records in the DNS.

How keys are made is the machine's half.
"""
