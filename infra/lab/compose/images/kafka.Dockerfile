# Stands in for apache/kafka: the same jars, and settings from KAFKA_* as that image takes them.
FROM tutti-local/java
COPY jars /opt/kafka/libs
COPY log4j2.properties kafka.sh /opt/kafka/
RUN install -d -o 1000 -g 1000 /var/lib/kafka/data
USER 1000:1000
EXPOSE 9092
CMD ["sh", "/opt/kafka/kafka.sh"]
