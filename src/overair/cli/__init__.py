"""Command lines: one file for each family of commands."""
