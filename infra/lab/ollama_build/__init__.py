"""Builds a real Ollama with tiny models, to be tested against."""
