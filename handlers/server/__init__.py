"""The server processes: `serve` starts and supervises them, `api` is the one that answers clients, `app` composes it."""
