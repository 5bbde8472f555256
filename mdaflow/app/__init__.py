"""The program: configuration, wiring, pipeline, log."""
