"""Server-side tools of a worker: what its operator's file says (`declared`), one module a kind, and the backend that calls them.

A tool's name stands where a model's does, a call of it is a step like any other: routing, leases, retries, deadlines and cancels are those
of steps, and a permit of a tool that few may use at once is a slot of its own node (`nodes`, decision 0040).
"""
