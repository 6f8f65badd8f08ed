"""`python -m dasd` is `dasd`: what launchers of several processes are given."""

from dasd.cli import main

main()
