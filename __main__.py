"""`python -m crossdistil` is the `crossdistil` command."""

from .core.app.cli import main

main()
