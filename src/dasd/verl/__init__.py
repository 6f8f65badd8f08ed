"""DASD under verl's trainer: Ray, many nodes, verl's workers and rollouts; the token credit is `dasd.credit`'s, as everywhere.

verl finds `dasd.verl.trainer` by itself where both are installed (entry point `verl.plugins`); `trainer.v1.trainer_mode=dasd`
chooses it. Written for verl 0.9.1. Nothing outside this package imports verl.
"""
