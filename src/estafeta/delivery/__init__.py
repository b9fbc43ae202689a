"""What delivery agents share."""
