"""`python -m swarm.simulation [SEED] [--seeds N]`: plays scenarios and says which promises were broken."""

from __future__ import annotations

import argparse

from swarm.simulation.play import played, quiet
from swarm.simulation.scenario import drawn


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m swarm.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="play this one")
    parser.add_argument("--seeds", type=int, default=300, help="or so many, from 0 on (default: 300)")
    told = parser.parse_args()
    seeds = range(told.seeds) if told.seed is None else [told.seed]
    broken = 0
    with quiet():
        for seed in seeds:
            wrong = played(drawn(seed))
            broken += bool(wrong)
            for line in wrong:
                print(f"seed {seed}: {line}")
    print(f"{len(seeds):,} scenarios, {broken:,} with broken promises")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
