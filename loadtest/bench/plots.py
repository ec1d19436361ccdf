"""Draws results as SVG, the same size and style each time."""

from pathlib import Path


def draw(results: Path, modules: dict[str, dict]) -> None:
    """Draws what there are results for."""
