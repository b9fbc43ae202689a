"""The services that master.cf names; none imports another."""
