"""All that a client touches: HTTP, events and the command line."""
