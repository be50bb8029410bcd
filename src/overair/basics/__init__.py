"""Words that every room may use: time, ids, names of resources, kinds of error, units of work."""
