"""Proof: what is stored is read again, and what was restored is compared."""
