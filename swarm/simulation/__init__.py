"""The dispatcher, the bus, the ledger and the store under a virtual clock, with everything going wrong around them.

No Ray, no model, no thread: a scenario plays the same way every time, thousands of virtual seconds in a moment.

    python -m swarm.simulation 17            # plays seed 17 and says what it broke, if anything
    python -m swarm.simulation --seeds 1000
"""
