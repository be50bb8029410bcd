"""Which processes make up this server, and what they tell each other."""
