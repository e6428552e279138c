"""Copies of the database, and the way back from them."""
