"""The doors that mail comes in by."""
