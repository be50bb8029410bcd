"""Who does what, in what order, how fast, until when: jobs and their executions (wire reference §2 and §3)."""
