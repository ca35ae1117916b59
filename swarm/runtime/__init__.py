"""Where a swarm runs: hosts in this process or as Ray actors, and the `Swarm` that callers hold."""
