"""Composes plans: a provider's recipe, with its stages filled by the claims of plugins."""
