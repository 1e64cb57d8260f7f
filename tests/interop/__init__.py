"""WebSocket clients that nobody here wrote, against the real service."""
