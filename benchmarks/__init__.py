"""How fast the service is, how it grows, and what that costs; `python -m benchmarks --help`.

The real `twistd` on one host, real TLS clients on another (`envelope.lab`), the real rules.
Every figure that has a goal is a ratio, or comes beside one that was taken in the same run: the
variants take turns, in short rounds, each on two hosts of its own.

`lab` makes the hosts and starts the services, `client` is the load, `points` are the
measurements, `results` keeps them, `report` and `plots` write docs/performance.md from them.
`trees` compares the service of this tree with that of another checkout, in one run.
"""
