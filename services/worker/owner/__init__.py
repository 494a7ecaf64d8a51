"""The machine is somebody's: when a worker leaves it to him, when it puts it to sleep. `manners` decide (pure), `machine` reads, `yielding` acts."""
