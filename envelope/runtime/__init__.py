"""Everything that leans on private names of Twisted or CPython, or patches the process."""
