"""The machine is somebody's: when a worker leaves it to him, or lets it sleep. `manners` decide, `machine` reads, `yielding` acts."""
