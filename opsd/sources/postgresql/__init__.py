"""A PostgreSQL server, logically: what it holds, dumped by its own programs, with rows and digests of the same snapshot."""
