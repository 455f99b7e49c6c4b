"""drupe-mixed-precision: decides how many bits each matrix gets."""
