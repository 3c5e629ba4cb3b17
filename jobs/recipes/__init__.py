"""Recipes: how a submission becomes a command, by job type, operator task, template and workspace. Reads files; runs nothing."""
