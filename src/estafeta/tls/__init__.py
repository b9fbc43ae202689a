"""TLS for servers and clients: contexts, the byte pipe, certificates, policies. No SMTP in here, and no sockets."""
