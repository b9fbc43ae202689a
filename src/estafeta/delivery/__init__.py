"""What delivery agents share: taking requests, reporting results, mailboxes."""
