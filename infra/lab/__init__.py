"""The laboratory: benchmarks, chaos, simulators, a built Ollama. Left out of the wheel."""
