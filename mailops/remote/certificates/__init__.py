"""Certificates: made, and told of.

Who shows them, on which port, is the services' to know.
"""
