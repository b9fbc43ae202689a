"""Clocks, files, locks, privileges, processes, log sinks: no mail knowledge."""
