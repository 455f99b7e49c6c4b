"""drupe-report: what a package or a search came to, as a page and as JSON."""
