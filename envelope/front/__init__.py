"""The HTTP and WebSocket front: from the open socket to an admitted session."""
