"""The measurements: each module has `measure(plan) -> dict`, JSON that `verdicts` and `plots` read.
"""
