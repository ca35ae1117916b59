"""Which models there are, where their files come from, and the folder on this machine that holds them.

`registry` reads `models.yaml`; `store` pulls, verifies and hands out files; `cli` is `swarm models`.
"""
