"""What the service survives, shown by a table: `make chaos` runs all of it, `make test` a small dose. Real processes, files and sockets."""
