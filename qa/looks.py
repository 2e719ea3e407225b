"""How large a sample is at each look: one that does not decide a gate is extended and looked at again."""


def sizes(first: int, most: int) -> list[int]:
    """Sizes of the sample, each about twice the one before, from `first` to `most`; what would add less than half is not worth a look of its own."""
    found = [min(first, most)]
    while 2 * most >= 3 * found[-1]:
        found.append(min(2 * found[-1], most))
    return found
