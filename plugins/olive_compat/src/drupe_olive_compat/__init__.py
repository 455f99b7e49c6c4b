"""drupe-olive-compat: Olive's workflow files as they are."""
