"""What leans on undocumented parts of Twisted or CPython, or changes the whole process."""
