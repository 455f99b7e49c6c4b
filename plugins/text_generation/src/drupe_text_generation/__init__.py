"""The task text-generation for Drupe: sample inputs, and the check of a finished package."""
