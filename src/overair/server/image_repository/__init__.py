"""Which images exist? Targets, delegations, snapshot and timestamp of the Image repository, in both flavours."""
