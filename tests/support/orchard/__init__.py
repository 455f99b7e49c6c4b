"""A distribution outside the repository: a task, an importer, a quality and a provider, each in its own folder."""
