"""The machine is somebody's: when a worker leaves it to him, when it puts it to sleep. `rules` are pure, `machine` reads, `guest` acts."""
