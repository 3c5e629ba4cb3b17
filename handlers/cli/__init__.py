"""The command line: a client of the contract, and the two commands that start the service. Knows nothing of the server behind it."""
