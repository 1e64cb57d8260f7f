"""The measurements: each module's `measure` returns JSON that `verdicts` and `plots` read."""
