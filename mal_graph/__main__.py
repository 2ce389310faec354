"""`python -m mal_graph` is the command line."""

import sys

from mal_graph.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
