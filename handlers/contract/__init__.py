"""The two contracts: read once, compiled once, and asked whether a value matches them. Knows no web framework and no job."""
