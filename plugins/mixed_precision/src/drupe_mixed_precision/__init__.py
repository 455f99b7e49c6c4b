"""drupe-mixed-precision: which matrix gets how many bits."""
