"""What the laptop and the machine have to agree on, and the laptop may import.

No files, no programs, nothing of either half.
"""
