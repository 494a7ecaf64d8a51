"""The machine is somebody's: when its worker yields, or lets it sleep. `manners` decide (pure), `machine` reads, `yielding` acts."""
