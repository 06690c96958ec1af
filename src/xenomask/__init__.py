"""xenomask: finds, per pixel, what a road scene's segmentation network was never taught."""

__version__ = "0.1.0"
