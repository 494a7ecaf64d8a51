"""docker-compose.yml run for real where no registry of images is at hand: an engine, and images made here of what package managers have.

    engine     the Docker engine that answers here, else Debian's, started for as long as it is needed
    images     what stands in for which image: images/*.Dockerfile
    local.yml  puts them in the place of the registries' images; all else of docker-compose.yml stays as it is

`make compose-check` builds them once and runs tests/compose. What is real: the Dockerfile, docker-compose.yml with its settings, limits,
users, volumes, health checks; Kafka, Redis, Ollama, Prometheus as programs. What is not: the registries' own images. Python is Debian's,
MongoDB is SecantusDB, a stand-in; of Grafana, which cannot be had, only its part of the compose file is read.
"""
