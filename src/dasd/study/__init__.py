"""Which method is better, and is it so beyond the noise of seeds and problems? Many methods x seeds x tasks at matched budget.

`config` what a study file says, `cells` the runs that it takes, `search` which settings each arm is run with, `work` runs
them, `statistics` the formulas, `results` what the finished cells say.
"""
