"""`python -m pes_cluster` is `pes`."""

import sys

from pes_cluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
