"""The load: a program of the standard library with thousands of clients.

It runs on the clients' host and takes orders, one a line (`client.program`).
"""
