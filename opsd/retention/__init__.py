"""Which snapshots stay, and how the rest go.

Promise: what is kept and why is decided by pure functions; only `prune` changes a repository.
"""
