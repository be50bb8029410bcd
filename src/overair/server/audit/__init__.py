"""What operators did: one row for each change, written with the change itself."""
