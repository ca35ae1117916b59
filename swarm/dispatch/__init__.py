"""Who answers what: a pure policy, calibrated confidence, and the shell that acts on their decisions."""
