"""`tutti join`: a machine becomes a node of a cluster. `invitation` (what it must know), `mdns` (found on the network), `checks` (may it),
`worker` (settings, process), `units` (survives reboots). The commands are in infra/cli/join.py.
"""
