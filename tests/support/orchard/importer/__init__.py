"""The importer: models that are lists of numbers in tree.json."""
