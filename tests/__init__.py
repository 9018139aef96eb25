"""The tests: each mirrors a module of opsd or tells a story, and each name is a sentence about behaviour."""
