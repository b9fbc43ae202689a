"""The worker skeleton: start, jail, listen, serve, retire."""
