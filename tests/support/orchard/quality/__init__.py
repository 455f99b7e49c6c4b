"""The quality `acme`."""
