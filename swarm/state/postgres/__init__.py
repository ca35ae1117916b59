"""The store in PostgreSQL, for dispatchers on many machines."""
