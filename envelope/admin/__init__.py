"""What operators are shown over HTTP."""
