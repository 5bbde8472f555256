"""The rule engine: IR and message to a Plan. Pure: no I/O, no logging."""
