{{/* One rule of a list. Given: ports, to (peers; empty: anywhere), protocols (or TCP). */}}
{{- define "tutti.egress" -}}
- ports:
    {{- range $port := .ports }}
    {{- range $.protocols | default (list "TCP") }}
    - { port: {{ $port }}, protocol: {{ . }} }
    {{- end }}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* At most one is away for maintenance. Given: root, component, pool, name. */}}
{{- define "tutti.disruption" }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tutti.name" .root }}-{{ .name }}
  labels: {{- include "tutti.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow # one that waits for its store holds up no maintenance
  selector: { matchLabels: {{ include "tutti.selector" . | fromYaml | toJson }} }
{{- end }}

{{/* Of the bootstrap servers; who advertises others names them in networkPolicy.extraEgress. Given: root. JSON. */}}
{{- define "tutti.kafkaPorts" -}}
{{- $ports := list }}
{{- range splitList "," .Values.kafka.servers }}
{{- $ports = append $ports (regexFind "[0-9]+\\z" (trim .) | default "9092" | int) }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}
