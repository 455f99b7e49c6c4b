"""Rounding by signed gradient descent, through the library auto-round."""
