"""What we host: rooms along one road, imported downwards only."""
