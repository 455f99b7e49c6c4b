"""drupe-search-optuna: finds the options that make the best packages, by trying them."""
