"""The service's certificate, and the verification of access tokens."""
