"""Sans-I/O protocol machines and codecs: bytes in, events out."""
