"""What both ends of the API agree on: where it is, how far it goes, and how its errors are told."""

API = "/api/v1"
LEVEL = 1
"""What this version's API can do; one more with everything that a client may need and an older service has not."""
LEVEL_HEADER = "Sluice-Api-Level"
"""Of every answer: the level of the service."""
LARGEST = 2**31 - 1
"""The largest number that a run or anything else in the database can have: PostgreSQL takes a larger one for an error, not for what is not there."""
PROBLEM = "application/problem+json"
KINDS = "urn:sluice:problem:"
"""What the type of a problem begins with."""
