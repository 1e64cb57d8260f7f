"""Metrics and health for operators, over HTTP."""
