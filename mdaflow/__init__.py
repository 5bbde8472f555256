"""mdaflow: mail delivery by rules that explain themselves."""

__version__ = "0.1.0"
