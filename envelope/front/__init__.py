"""The HTTP and WebSocket front: from a listening socket to an admitted session."""
