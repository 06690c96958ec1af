"""Where things lie: the project's root, the tests, what is kept for them, and the real data beside the project."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
MICRO = TESTS / "golden" / "mmseg" / "random_micro.pth"
SHARED = ROOT.parent / "shared"
