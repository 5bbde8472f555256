"""What answers the facts that a message alone cannot answer, one file each."""
