{{/* One goes at a time, and not before five quiet minutes: a planner that leaves gives its homes to others. */}}
{{- define "tutti.pace" -}}
scaleDown: { stabilizationWindowSeconds: 300, policies: [{ type: Pods, value: 1, periodSeconds: 60 }] }
{{- end }}

{{/* KEDA's trigger: unread records of a consumer group. `earliest`: where a group has committed nothing, all that is retained is unread.
     Given: root, group, topic, each, idle (more replicas than partitions are of use). Never without a topic: of a group that has committed
     nothing KEDA would then take every topic of the broker. */}}
{{- define "tutti.lag" -}}
{{- $kafka := .root.Values.kafka }}
- type: kafka
  metadata:
    bootstrapServers: {{ $kafka.servers | quote }}
    consumerGroup: {{ .root.Values.topics.settings.prefix }}tutti-{{ .group }}
    topic: {{ .root.Values.topics.settings.prefix }}{{ .topic }}
    lagThreshold: {{ .each | int | quote }}
    offsetResetPolicy: earliest
    scaleToZeroOnInvalidOffset: "false"
    allowIdleConsumers: {{ .idle | quote }}
    {{- if $kafka.tls.enabled }}
    tls: enable
    {{- end }}
    {{- with $kafka.sasl.mechanism }}
    sasl: {{ get (dict "SCRAM-SHA-512" "scram_sha512" "SCRAM-SHA-256" "scram_sha256" "PLAIN" "plaintext") . }}
    {{- end }}
  {{- if or $kafka.tls.enabled $kafka.sasl.mechanism }}
  authenticationRef: { name: {{ include "tutti.name" .root }}-kafka }
  {{- end }}
{{- end }}

{{/* What a pool serves: its agents; else tools, if it has their file; else whatever models allow. Given: root, pool. JSON. */}}
{{- define "tutti.capabilities" -}}
{{- $models := without .root.Values.topics.settings.capabilities "tools" }}
{{- .pool.agents | default (ternary (list "tools") $models (hasKey .pool.settings "tools")) | toJson }}
{{- end }}

{{/* Unread steps of each capability and class that a pool serves. Given: root, pool. */}}
{{- define "tutti.waitingByKafka" -}}
{{- range $capability := include "tutti.capabilities" . | fromJsonArray }}
{{- range list "interactive" "standard" "batch" }}
{{ include "tutti.lag" (dict "root" $.root "group" "router" "topic" (printf "steps.%s.%s" $capability .) "each" $.pool.scale.waiting "idle" true) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Steps that wait in the routers, and those that no node can take: these come by every 11 s at most, in between they lie in delays.
     Series that are not there are an error, not 0. Given: root, pool. */}}
{{- define "tutti.waitingQuery" -}}
{{- $router := printf "%s-router" (include "tutti.name" .root) }}
{{- $capabilities := include "tutti.capabilities" . | fromJsonArray | join "|" }}
{{- $where := printf "namespace=%q, service=%q, capability=~%q" .root.Release.Namespace $router $capabilities -}}
sum(tutti_steps_waiting{ {{- $where -}} }) + 11 * sum(rate(tutti_steps_unplaced_total{ {{- $where -}} }[2m]))
{{- end }}

{{/* A ScaledObject. What cannot be asked is not 0: then as many stay as there are, one at least.
     Given: root, component, pool, name, kind, min, max, triggers (YAML). */}}
{{- define "tutti.scaledObject" }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "tutti.name" .root }}-{{ .name }}
  labels: {{- include "tutti.labels" . | nindent 4 }}
spec:
  scaleTargetRef: { name: {{ include "tutti.name" .root }}-{{ .name }} }
  pollingInterval: {{ .root.Values.autoscaling.pollSeconds }}
  minReplicaCount: {{ .min }}
  maxReplicaCount: {{ .max }}
  fallback: { failureThreshold: 3, replicas: {{ max 1 (int .min) }}, behavior: currentReplicasIfHigher }
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- include "tutti.pace" . | nindent 8 }}
  triggers: {{- .triggers | nindent 4 }}
{{- end }}
