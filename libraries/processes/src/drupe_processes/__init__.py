"""drupe-processes: a Python module works in a process of its own. Each side is a module: `child` and `parent`."""
