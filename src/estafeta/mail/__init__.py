"""Pure vocabulary: addresses, headers, status codes, queue ids, log lines. No I/O."""
