"""Access: who may call and how often, and the audit log of what was called. Knows no web framework."""
