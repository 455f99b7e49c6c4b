"""Says what Drupe can do here."""
