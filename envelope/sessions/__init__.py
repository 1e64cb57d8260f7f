"""Decides about requests, and holds the open sessions."""
