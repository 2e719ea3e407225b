"""Better rounding at the same types and bytes: which of a block's values stand for which weights is chosen with calibration text in view."""
