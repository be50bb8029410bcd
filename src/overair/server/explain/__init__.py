"""Why is this device where it is? One chain of reasons."""
