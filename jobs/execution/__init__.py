"""What runs jobs: the worker, its dispatcher, a supervisor a job, and the one process that each supervises. Never talks to a client."""
