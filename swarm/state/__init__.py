"""Where truth lives: the ledger of budgets, the journal of attempts and results, and fitted heads."""
