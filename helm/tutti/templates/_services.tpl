{{/* What a service is told besides what every process is. Given: root, component, unit. */}}
{{- define "tutti.serviceEnvironment" -}}
{{- $prefix := printf "TUTTI_%s__" (upper .component) }}
{{- range $setting, $name := .unit.stores }}
{{- $store := index $.root.Values.stores $name }}
{{- if $store.secret.name }}
- name: {{ $prefix }}{{ upper $setting }}
  valueFrom: { secretKeyRef: { name: {{ $store.secret.name }}, key: {{ $store.secret.key }} } }
{{- else if $store.url }}
- { name: {{ $prefix }}{{ upper $setting }}, value: {{ $store.url | quote }} }
{{- end }}
{{- end }}
{{- if and .unit.keys .root.Values.keys.secret }}
- { name: TUTTI_INGRESS__KEYS_FILE, value: /etc/tutti/keys/keys.json } # of whoever reads keys
{{- end }}
{{- if .unit.tlsSecret }}
- { name: TUTTI_TLS__{{ upper .component }}__CERT_FILE, value: /etc/tutti/tls/tls.crt }
- { name: TUTTI_TLS__{{ upper .component }}__KEY_FILE, value: /etc/tutti/tls/tls.key }
{{- end }}
{{- include "tutti.settings" (dict "prefix" $prefix "settings" .unit.settings) }}
{{- end }}

{{/* So many there are at least: what disruptions are judged by. Given: root, unit. */}}
{{- define "tutti.least" -}}
{{- ternary .unit.replicas (.unit.scale.min | default 1) (eq .root.Values.autoscaling.kind "none") -}}
{{- end }}

{{/* Values that are each right and together wrong. */}}
{{- define "tutti.check" -}}
{{- $scaled := ne .Values.autoscaling.kind "none" }}
{{- if not .Values.kafka.servers }}{{ fail "kafka.servers: say where Kafka is, for example --set kafka.servers=kafka:9092" }}{{ end }}
{{- if and .Values.kafka.sasl.mechanism (not .Values.kafka.sasl.secret) }}
{{- fail "kafka.sasl.secret: name the Secret that holds username and password" }}
{{- end }}
{{- range $name, $own := .Values.services }}
{{- range $setting, $store := $own.stores }}
{{- if not (hasKey $.Values.stores $store) }}{{ fail (printf "services.%s.stores.%s: there is no store %q" $name $setting $store) }}{{ end }}
{{- end }}
{{- range $topic, $each := dig "scale" "lag" dict $own }}
{{- if regexMatch "^(jobs|delays)\\." $topic }}
{{- fail (printf "services.%s.scale.lag: unread records of %s are no work of its own: they wait for nodes, for their time, or are marks that a transaction left" $name $topic) }}
{{- end }}
{{- end }}
{{- range $own.reaches }}
{{- if not (hasKey $.Values.services .) }}{{ fail (printf "services.%s.reaches: there is no service %q" $name .) }}{{ end }}
{{- end }}
{{- end }}
{{- $homes := .Values.topics.settings.home_partitions | default 6 | int }}
{{- $planner := .Values.services.planner }}
{{- if gt (ternary $planner.scale.max $planner.replicas $scaled | int) $homes }}
{{- fail (printf "services.planner: there are %d homes (topics.settings.home_partitions), more planners have nothing to do" $homes) }}
{{- end }}
{{- $names := list }}
{{- $mailboxes := .Values.topics.settings.work_partitions | default 16 | int }}
{{- $nodes := 0 }}
{{- range .Values.pools }}
{{- $pool := mergeOverwrite (deepCopy $.Values.poolDefaults) . }}
{{- if has .name $names }}{{ fail (printf "pools: two are called %q" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- $most := include "tutti.most" (dict "root" $ "unit" $pool) | int }}
{{- $nodes = add $nodes $most }}
{{- if and $pool.url (or (gt $most 1) (eq $pool.kind "DaemonSet")) }}
{{- fail (printf "pools.%s: an endpoint (url) has one worker; make a pool for each endpoint" .name) }}
{{- end }}
{{- if and (eq (toString $pool.scale.min) "0") (not $.Values.autoscaling.prometheus) }}
{{- fail (printf "pools.%s.scale.min: 0 needs autoscaling.prometheus, since steps that no node can take do not lie where Kafka's lag shows them" .name) }}
{{- end }}
{{- end }}
{{- if gt (int $nodes) $mailboxes }}
{{- fail (printf "pools: up to %d nodes, and %d mailboxes (topics.settings.work_partitions)" (int $nodes) $mailboxes) }}
{{- end }}
{{- range .Values.ingress.hosts }}
{{- if not (dig .service "public" false $.Values.services) }}{{ fail (printf "ingress.hosts: %q is no public service" .service) }}{{ end }}
{{- end }}
{{- end }}
