"""The load: a program of the standard library that is thousands of clients at once.

It runs on the client's host, and is told what to do line by line (`client.program`).
"""
