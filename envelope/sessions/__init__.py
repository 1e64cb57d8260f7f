"""Who is let in, for how long, and what ends a session."""
