"""Who operators are and what they may do: users, roles, keys, sessions, their policies, and the decisions."""
