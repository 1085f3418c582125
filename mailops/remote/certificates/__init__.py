"""Certificates: made, and told of."""
