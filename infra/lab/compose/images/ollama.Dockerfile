# Stands in for ollama/ollama: what `make ollama` has built, with its models, which a new volume takes over.
FROM tutti-local/java
ARG ROOT
COPY bin /opt/ollama/bin
COPY lib /opt/ollama/lib
COPY sid /opt/ollama/sid
COPY --chown=10001:10001 models /models
RUN sed -i "s#${ROOT}#/opt/ollama#g" /opt/ollama/lib/ollama/* && ln -s /opt/ollama/bin/ollama /usr/local/bin/ollama
ENV OLLAMA_NO_CLOUD=1 OLLAMA_CONTEXT_LENGTH=2048
EXPOSE 11434
ENTRYPOINT ["/usr/local/bin/ollama"]
CMD ["serve"]
