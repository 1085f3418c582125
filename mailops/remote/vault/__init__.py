"""The vault: made, opened, closed, and who owns what in it.

Which units run only while it is open is the services' to say.
"""
