"""Who is served next, and when again: fair turns, shares of classes, urgency, retries, schedules. Pure."""
