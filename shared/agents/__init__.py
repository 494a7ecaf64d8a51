"""Agents, prompts and profiles as a service holds them: what is built in, what administrators declared, and what a job pins of it. Pure."""
