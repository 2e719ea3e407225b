"""The executor on several machines: stages as tasks of a Ray cluster, their files by a shared store. Nothing imports Ray unless the settings ask for it."""
