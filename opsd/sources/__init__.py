"""What is backed up; yields entries and streams, stores nothing."""
