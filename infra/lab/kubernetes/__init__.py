"""Kubernetes' own control plane without containers, and what Helm's chart is checked with."""
