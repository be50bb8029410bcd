"""What Uptane and TUF repositories, Primaries and Secondaries say to each other. Pure: bytes in, values out, and back."""
