"""Encrypted, deduplicated objects on a store: the engine. `docs/format.md` describes every byte."""
