"""The commands of the `drupe` program."""
