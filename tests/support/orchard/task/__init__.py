"""The task `grading`: a model grades apples."""
