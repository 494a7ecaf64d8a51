{{/* Names, labels, and the one pod that every service and every pool is. Each helper says what it is given. */}}

{{/* Of everything in a release. Given: root. */}}
{{- define "tutti.name" -}}
{{- $name := ternary .Release.Name (printf "%s-tutti" .Release.Name) (contains "tutti" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* By which pods are found; a pool's have its name, too. Given: root, component, pool (or nothing). */}}
{{- define "tutti.selector" -}}
app.kubernetes.io/name: tutti
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
tutti/pool: {{ . }}
{{- end }}
{{- end }}

{{/* Of objects. Given: as tutti.selector. */}}
{{- define "tutti.labels" -}}
{{ include "tutti.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Given: image values (own), those to fall back to (default), tag of last resort (tag). */}}
{{- define "tutti.image" -}}
{{- $image := mergeOverwrite (deepCopy .default) .own -}}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else }}{{ printf "%s:%s" $image.repository ($image.tag | default .tag) }}{{ end -}}
{{- end }}

{{/* Environment variables of settings: prefix + NAME; what is no text is JSON, as the services read it. Given: prefix, settings. */}}
{{- define "tutti.settings" -}}
{{- range $name, $value := .settings }}
- { name: {{ printf "%s%s" $.prefix (upper $name) }}, value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }} }
{{- end }}
{{- end }}

{{/* How Kafka is reached, and what its topics are. Given: root, login (Secret of a user of its own, or ""). */}}
{{- define "tutti.kafka" -}}
{{- $kafka := .root.Values.kafka }}
- { name: TUTTI_KAFKA_SERVERS, value: {{ $kafka.servers | quote }} }
{{- if or $kafka.tls.enabled $kafka.sasl.mechanism }}
- name: TUTTI_KAFKA_SECURITY_PROTOCOL
  value: {{ printf "%s%s" (ternary "SASL_" "" (ne $kafka.sasl.mechanism "")) (ternary "SSL" "PLAINTEXT" $kafka.tls.enabled) }}
{{- end }}
{{- if $kafka.tls.enabled }}
{{- if $kafka.tls.caSecret }}
- { name: TUTTI_KAFKA_CA_FILE, value: /etc/tutti/kafka-ca/ca.crt }
{{- end }}
{{- if $kafka.tls.clientSecret }}
- { name: TUTTI_KAFKA_CERT_FILE, value: /etc/tutti/kafka-client/tls.crt }
- { name: TUTTI_KAFKA_KEY_FILE, value: /etc/tutti/kafka-client/tls.key }
{{- end }}
{{- end }}
{{- with $kafka.sasl.mechanism }}
- { name: TUTTI_KAFKA_SASL_MECHANISM, value: {{ . }} }
{{- range $key := list "username" "password" }}
- name: TUTTI_KAFKA_SASL_{{ upper $key }}
  valueFrom: { secretKeyRef: { name: {{ $.login | default $kafka.sasl.secret }}, key: {{ $key }} } }
{{- end }}
{{- end }}
{{- include "tutti.settings" (dict "prefix" "TUTTI_TOPICS__" "settings" .root.Values.topics.settings) }}
{{- include "tutti.settings" (dict "prefix" "TUTTI_" "settings" .root.Values.settings) }}
{{- range $name, $value := .root.Values.extraEnv }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{/* Folder → what lies there: what is mounted below /etc/tutti. Given: root, unit (a service or pool with its defaults). YAML of a map. */}}
{{- define "tutti.mounts" -}}
{{- $tls := .root.Values.kafka.tls }}
{{- if and $tls.enabled $tls.caSecret }}
kafka-ca: { secret: { secretName: {{ $tls.caSecret }} } }
{{- end }}
{{- if and $tls.enabled $tls.clientSecret }}
kafka-client: { secret: { secretName: {{ $tls.clientSecret }} } }
{{- end }}
{{- if and .unit.keys .root.Values.keys.secret }}
keys: { secret: { secretName: {{ .root.Values.keys.secret }} } }
{{- end }}
{{- with .unit.tlsSecret }}
tls: { secret: { secretName: {{ . }} } }
{{- end }}
{{- with .root.Values.extraVolume }}
extra: {{ toJson . }}
{{- end }}
{{- end }}

{{/* Nobody is root, nothing is written, nothing is allowed. */}}
{{- define "tutti.confined" -}}
securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
{{- end }}

{{/* Of a pod. Given: root, component, pool, unit. */}}
{{- define "tutti.podHead" -}}
metadata:
  labels:
    {{- include "tutti.selector" . | nindent 4 }}
    {{- with .root.Values.pods.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .root.Values.pods.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false # they would be TUTTI_... variables, too
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ .root.Values.pods.user }}
    runAsGroup: {{ .root.Values.pods.user }}
    fsGroup: {{ .root.Values.pods.user }}
    fsGroupChangePolicy: OnRootMismatch # models are many gigabytes
    seccompProfile: { type: RuntimeDefault }
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{ range . }}
    - name: {{ . }}{{ end }}
  {{- end }}
  {{- with .root.Values.pods.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with mergeOverwrite (deepCopy .root.Values.pods.nodeSelector) (.unit.nodeSelector | default dict) }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat .root.Values.pods.tolerations (.unit.tolerations | default list) }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* A pod of a service or pool. Given: root, component, pool, unit, port, environment (YAML), beside (YAML of a side container, or "").
     The process has its grace period after the pause before the end, and the pod some seconds more than both. */}}
{{- define "tutti.pod" -}}
{{- $mounts := include "tutti.mounts" . | fromYaml -}}
{{- $scheme := ternary "HTTPS" "HTTP" (not (empty .unit.tlsSecret)) -}}
{{- $pause := .unit.preStopSeconds | default 0 | int -}}
{{ include "tutti.podHead" . }}
  serviceAccountName: {{ include "tutti.name" .root }}
  terminationGracePeriodSeconds: {{ add (.root.Values.settings.grace_seconds | ceil) $pause 15 }}
  {{- if ne .unit.kind "DaemonSet" }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: { matchLabels: {{ include "tutti.selector" $ | fromYaml | toJson }} }
    {{- end }}
  {{- end }}
  {{- with .unit.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .beside }}
  initContainers: {{- . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tutti.image" (dict "own" .unit.image "default" .root.Values.image "tag" .root.Chart.AppVersion) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [run, {{ .component }}]
      ports: [{ name: http, containerPort: {{ .port }} }]
      env:
        - { name: TUTTI_HTTP_PORT, value: {{ .port | quote }} }
        {{- include "tutti.kafka" (dict "root" .root "login" .unit.kafkaSecret) | nindent 8 }}
        {{- with .environment }}
        {{- . | nindent 8 }}
        {{- end }}
      readinessProbe: { httpGet: { path: /readyz, port: http, scheme: {{ $scheme }} }, periodSeconds: 5, timeoutSeconds: 3 }
      livenessProbe: { httpGet: { path: /healthz, port: http, scheme: {{ $scheme }} }, initialDelaySeconds: 15, periodSeconds: 10, timeoutSeconds: 5 }
      {{- if $pause }}
      lifecycle: { preStop: { sleep: { seconds: {{ $pause }} } } }
      {{- end }}
      resources: {{- toYaml .unit.resources | nindent 8 }}
      {{- include "tutti.confined" . | nindent 6 }}
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        {{- range $name, $source := $mounts }}
        - { name: {{ $name }}, mountPath: /etc/tutti/{{ $name }}, readOnly: true }
        {{- end }}
  volumes:
    - { name: tmp, emptyDir: {} }
    {{- range $name, $source := $mounts }}
    - {{- mergeOverwrite (dict "name" $name) $source | toYaml | nindent 6 }}
    {{- end }}
    {{- if .beside }}
    - {{- include "tutti.models" .unit.ollama.storage | nindent 6 }}
    {{- end }}
{{- end }}
