"""What does this vehicle install now? ECUs, manifests, assignments, campaigns."""
