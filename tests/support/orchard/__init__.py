"""A distribution out of the tree: a task, an importer, a quality and a provider, each in a folder of its own."""
