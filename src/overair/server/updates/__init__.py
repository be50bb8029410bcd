"""OTA updates: from an operator's one call to a signed image, a stream and a job."""
