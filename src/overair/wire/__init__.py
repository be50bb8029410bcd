"""What server and device say to each other. Pure: bytes and values in, bytes and values out; no IO, no clock, no chance."""
