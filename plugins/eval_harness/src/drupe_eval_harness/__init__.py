"""drupe-eval-harness: how well packages solve the tasks of lm-eval."""
