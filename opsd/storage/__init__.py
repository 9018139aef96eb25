"""Bytes under names; knows nothing of backups."""
