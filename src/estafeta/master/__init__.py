"""The master process: sockets, workers, wake-ups, throttling."""
