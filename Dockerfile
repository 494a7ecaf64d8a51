# One image for every service: `docker run IMAGE run planner`. Dependencies are exactly those of requirements.lock, by hash.
# The Python is the one that the tests run on. `--build-arg PYTHON=...` takes the base from a registry of one's own.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /build
COPY requirements.lock .
RUN python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY services services
COPY shared shared
COPY infra infra
RUN /app/bin/pip install --no-cache-dir --no-deps . && /app/bin/pip uninstall -q -y pip setuptools

FROM ${PYTHON}
RUN groupadd --gid 10001 tutti && useradd --uid 10001 --gid tutti --home-dir /app --no-create-home tutti
COPY --from=build /app /app
# By number, so that Kubernetes can see that it is not root. Nothing is written: the root file system may be read-only.
USER 10001:10001
WORKDIR /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TUTTI_HOST=0.0.0.0
EXPOSE 8080 9101-9104
ENTRYPOINT ["tutti"]
CMD ["--help"]
