"""Networks that the inflated encoders are compared with."""

from .cotr import CoTr

__all__ = ['CoTr']
