"""Attention: `attention` chooses a backend by device, dtype, shape and what is installed."""

from visavis.kernels.attention.api import UnknownBackendError, attention, explain
from visavis.kernels.attention.backends import BACKENDS
from visavis.kernels.attention.call import AttentionShapeError

__all__ = ["BACKENDS", "AttentionShapeError", "UnknownBackendError", "attention", "explain"]
