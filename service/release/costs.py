"""What each stage needs."""

from config.words import Variant
from service.release.graph import Cost, nothing

snapshot = overlap = fix = sanity = convert = metadata = parity = activations = templates = imatrix = imatrix_check = nothing
windows = listed = bnb = sensitivity = hessians = nf4_sensitivity = divergence = questions = report = publish = nothing


def reference(asked: str) -> Cost:
    """The first questions."""
    return nothing


def stock(variant: Variant) -> Cost:
    """A stock mix."""
    return nothing


mix = mixed = rounded = nf4_mix = nf4 = measure = stock
