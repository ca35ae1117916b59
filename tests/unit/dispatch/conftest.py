"""Being here puts this folder on the path: the tests in folders below find its helpers."""
