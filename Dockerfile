# One image for every service: `docker run IMAGE run planner`. Dependencies are exactly those of requirements-image.lock, by hash,
# with the extras mcp, oidc, otel, sealing: whoever has only the image cannot add them.
# The Python is the one that the tests run on. `--build-arg PYTHON=...` takes the base from a registry of one's own; BUILDER, which is thrown
# away, may be another one: with a proxy's settings, or with the packages in it.
ARG PYTHON=python:3.11-slim
ARG BUILDER=${PYTHON}

FROM ${BUILDER} AS build
WORKDIR /build
COPY requirements-image.lock .
RUN python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md ./
COPY services services
COPY shared shared
COPY infra infra
RUN /app/bin/pip install --no-cache-dir --no-deps . && /app/bin/pip uninstall -q -y pip setuptools

FROM ${PYTHON}
# /models is for a volume that is made here: it takes this folder's owner with it, also for containers of other images.
RUN groupadd --gid 10001 tutti && useradd --uid 10001 --gid tutti --home-dir /app --no-create-home tutti && install -d -o tutti -g tutti /models
COPY --from=build /app /app
# By number, so that Kubernetes can see that it is not root. Nothing is written: the root file system may be read-only.
USER 10001:10001
WORKDIR /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TUTTI_HOST=0.0.0.0
EXPOSE 8080 9101-9107
# bash, because an interpreter's start every ten seconds for every service would cost more than the services do. Of a service that speaks TLS
# it sees that it listens.
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=30s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$TUTTI_HTTP_PORT || exit 1; compgen -e | grep -q ^TUTTI_TLS__ && exit 0; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["tutti"]
CMD ["--help"]
