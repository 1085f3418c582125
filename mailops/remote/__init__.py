"""The machine half of mailops: stdlib-only Python, run as root, spoken to over one SSH channel."""
