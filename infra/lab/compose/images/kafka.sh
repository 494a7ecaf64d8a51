# KAFKA_LOG_DIRS is log.dirs, and so on; the log's directory is formatted once.
set -eu
settings=/tmp/server.properties
env | awk -F= '/^KAFKA_/ && $1 != "KAFKA_HEAP_OPTS" { name = tolower(substr($1, 7)); gsub("_", ".", name); print name substr($0, length($1) + 1) }' > "$settings"
java() { command java -cp '/opt/kafka/libs/*' -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties "$@"; }
java kafka.tools.StorageTool format --ignore-formatted -t 4L6g3nShT-eMCtK--X86sw -c "$settings" >/dev/null
# shellcheck disable=SC2086
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 ${KAFKA_HEAP_OPTS:-} -cp '/opt/kafka/libs/*' -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties kafka.Kafka "$settings"
