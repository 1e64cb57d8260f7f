"""Measures speed, CPU and memory of the service, and how they scale; `python -m benchmarks --help`.

The real `twistd` runs on one host, real TLS clients on another (`envelope.lab`), with real rules.
Every figure with a goal is a ratio, or is shown beside another figure of the same run: the variants
take turns, in short rounds, each on two hosts of its own.

`lab` makes the hosts and starts the services, `client` is the load, `points` has the measurements,
`results` keeps them, `report` and `plots` write docs/performance.md from them.
`trees` compares the service of this tree with that of another checkout, in one run.
"""
