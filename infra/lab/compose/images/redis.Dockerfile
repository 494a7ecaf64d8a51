# Stands in for redis: the redis-server of a wheel, Debian's redis-cli.
FROM tutti-local/java
COPY redis-server /opt/redis/
# As the image does: nobody reaches it but the containers beside it.
RUN printf '#!/bin/sh\nexec /opt/redis/redis-server "$@" --protected-mode no\n' > /usr/local/bin/redis-server && chmod 755 /usr/local/bin/redis-server /opt/redis/redis-server && install -d -o 999 -g 999 /data
WORKDIR /data
EXPOSE 6379
CMD ["redis-server"]
