"""What is kept: jobs, their history, logs, leases, tokens and workers, in SQLite. Runs nothing and knows no client."""
