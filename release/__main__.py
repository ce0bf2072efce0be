"""``bin/package [DIR]``: makes the distributions in DIR (dist/); with --try each is then installed and used on each Python."""

import argparse
from pathlib import Path

from release.build import ROOT, build
from release.tried import try_all


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/package", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--try", action="store_true", dest="tries", help="needs the package index that pip is configured for")
    asked = parser.parse_args()
    made = build(asked.directory)
    for path in made:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if asked.tries:
        try_all(made)


if __name__ == "__main__":
    main()
