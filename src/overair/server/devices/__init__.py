"""Things, their types and groups, what is attached to them, and what a device may therefore do."""
