"""Everything that shows that the project does what it says; docs/testing.md says which kind of test lives where."""

from pathlib import Path

#: The checkout.
ROOT = Path(__file__).resolve().parents[1]
