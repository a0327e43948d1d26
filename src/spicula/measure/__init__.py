"""Lungs, outlines, sizes and the clinical rules that use them."""
