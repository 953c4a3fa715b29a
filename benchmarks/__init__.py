"""The grid. Its files know the paper's tables by name."""

from .paper import tables as _  # noqa: F401
