"""The two contracts: read, compiled, and asked whether a value matches. Knows no web framework and no job."""
