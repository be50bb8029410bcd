"""Policies of IAM and of devices: their documents, read strictly, and what they decide. Pure."""
