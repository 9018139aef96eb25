"""One run: sources → repository → manifest; and what is brought to copies."""
