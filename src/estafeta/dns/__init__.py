"""Asynchronous DNS look-ups: ``resolver`` answers, ``mx`` routes, ``client_name`` names a client.

A stub resolver of our own, because the AD bit, response codes, times to live and a custom port are needed and the
libraries lack one of them each.
"""
