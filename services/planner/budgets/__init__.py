"""Budgets of tenants: what may be granted, held, used and warned of. No I/O (decision 0007)."""
