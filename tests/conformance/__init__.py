"""The suites that every implementation of a store, an engine or a feed must pass."""
