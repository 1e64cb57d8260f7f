"""Keys, tokens and certificates: what the service believes, and where it comes from."""
