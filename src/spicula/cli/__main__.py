"""``python -m spicula.cli``."""

from spicula.cli import main

main()
