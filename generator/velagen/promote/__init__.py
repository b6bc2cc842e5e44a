"""A new version of a model in an application's file: one line of it, and where a registry's names lead."""
