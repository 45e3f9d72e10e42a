"""`edgead serve`: verdicts over HTTP, with the replicas and the batches of Ray Serve."""
