"""The loop that makes the kernel's rules what is wanted."""
