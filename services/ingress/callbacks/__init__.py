"""Callbacks: the ends of jobs, told over HTTP to whom their callers named. At least once, in no order, by a group of the ingresses."""
