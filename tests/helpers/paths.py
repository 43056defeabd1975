"""Where the repository lies, and the folder of sample media and weights beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
CONFIGS = ROOT / "configs"
GOLDEN = ROOT / "tests" / "golden"
"""Stored outputs of other programs."""
SHARED = ROOT.parent / "shared"
"""Sample media and weights; tests that need them skip where the folder is absent."""
