"""One file for each command of `dasd`: its arguments (`add`) and what it does (`run`). Heavy imports stay inside `run`."""
