"""How fast a package runs and what it takes: evaluators, and the command benchmark."""
