"""From a recipient address to a user."""
