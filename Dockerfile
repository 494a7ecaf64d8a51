# One image for every service: `docker run IMAGE run planner`. Dependencies are exactly those of requirements.lock, by hash.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock .
RUN python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY services services
COPY shared shared
COPY infra infra
RUN /app/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN useradd --system --create-home --uid 10001 tutti
COPY --from=build /app /app
USER tutti
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 TUTTI_HOST=0.0.0.0
ENTRYPOINT ["tutti"]
CMD ["--help"]
