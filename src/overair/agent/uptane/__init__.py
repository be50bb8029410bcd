"""The Uptane side of a device: a Primary, its Secondaries, what they keep and how they come in."""
