"""Socket.IO: what clients subscribe to, and how new log lines, progress and statuses reach them."""
