"""``python -m quorumvault`` is the command ``quorumvault``."""

from quorumvault.cli import main

if __name__ == "__main__":
    main()
