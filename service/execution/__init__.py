"""How one stage is carried out: once, in a process of its own, under limits, and its outputs kept."""
