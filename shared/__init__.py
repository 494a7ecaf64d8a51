"""What two or more services use: contracts, topics, errors, retry, clock, settings, telemetry, the log port, the service shell."""

__version__ = "0.2.0"
"""Of all that is released together: the wheel, the image, the chart, the OpenAPI document."""
