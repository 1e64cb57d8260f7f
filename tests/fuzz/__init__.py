"""Fuzz targets: a module for each kind of input, with a function `one(data)`.

`one` raises an exception when the service handles the input wrongly. The command
`python -m tests.fuzz.run PATH` runs a coverage-guided fuzzer on it (`make fuzz`: on all of them).
`test_fuzz.py` runs it on the corpus and on bytes that hypothesis generates, as part of the suite.
"""
