"""The task `grading`: apples get grades."""
