# Stands in for mongo: SecantusDB, which speaks MongoDB's protocol. What runs on it is not thereby tested on MongoDB.
FROM tutti-local/python
COPY wheels /wheels
RUN python -m venv /opt/secantus && /opt/secantus/bin/pip install -q --no-index --no-deps /wheels/*.whl && rm -rf /wheels
RUN printf '#!/bin/sh\nexec /opt/secantus/bin/secantusd-py --host 0.0.0.0 --port 27017 --storage-path /data/db --log-level WARNING\n' > /usr/local/bin/mongod \
    && chmod 755 /usr/local/bin/mongod && install -d -o 999 -g 999 /data/db
EXPOSE 27017
CMD ["mongod"]
