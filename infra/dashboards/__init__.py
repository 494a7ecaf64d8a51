"""Grafana dashboards as files: what is on them stands in `boards`, `tutti schemas generate` writes the JSON beside it."""
