"""How networks that began on ImageNet expect their three channels."""

from __future__ import annotations

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue, of values 0 to 1."""
