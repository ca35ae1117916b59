"""`python -m swarm.cli`."""

from swarm.cli.main import main

main()
