"""Run the command line by ``python -m latente.inference.cli``."""

from .app import main

if __name__ == "__main__":
    main()
