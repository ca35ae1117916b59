"""What can be seen of a run: logs and the receipt."""
