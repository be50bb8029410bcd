"""Private keys behind names: made here, used here, wrapped at rest, never handed out but by the one explicit method."""
