"""What months bring, in an hour: a service that is killed, paused, starved of disk and cut off from its Hub, and what the Hub holds meanwhile."""
