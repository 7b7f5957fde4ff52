"""Judging training by its curves: findings, range tests, landscapes, and bounds. Pure functions on numpy arrays."""
