"""The row of numbers that a step leaves: what is measured, and where each number stands."""
