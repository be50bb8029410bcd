"""Code signing, as AWS Signer tells it: profiles, jobs, platforms; an image and a key become a signed object."""
