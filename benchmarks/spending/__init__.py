"""What the spending benchmark is made of: a provider that bills, clients that spend, and the ways they go wrong."""
