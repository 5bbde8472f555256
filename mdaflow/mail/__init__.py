"""Mail as values: address, header, body, envelope. No I/O, and no input that raises."""
