"""Fuzz targets: one module for each way in, each with a function `one(data)`.

`one` raises whatever is wrong. `python -m tests.fuzz.run PATH` lets a coverage-guided fuzzer loose
on it (`make fuzz` does for all of them); `test_fuzz.py` runs it over the corpus and over bytes of
hypothesis' making, with the rest of the suite.
"""
