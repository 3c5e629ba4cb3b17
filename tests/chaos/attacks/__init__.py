"""Attacks on a real service, a row of the table each: every one is to be refused, and honest clients are not to notice."""
