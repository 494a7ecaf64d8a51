"""What runs and observes the services: command line, native launcher, simulators, benchmarks."""
