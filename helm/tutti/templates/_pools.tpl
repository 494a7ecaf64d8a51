{{/* Whether an Ollama runs in the pods. Given: a pool with its defaults. Empty: no. */}}
{{- define "tutti.hasOllama" -}}
{{- ternary "yes" "" (and .ollama.enabled (not .url)) -}}
{{- end }}

{{/* Whether KEDA scales it. Given: root, unit (a pool with its defaults). Empty: no. */}}
{{- define "tutti.poolScales" -}}
{{- ternary "yes" "" (and (eq .root.Values.autoscaling.kind "keda") (eq .unit.kind "Deployment") (gt (int .unit.scale.max) 1)) -}}
{{- end }}

{{/* So many workers it has at most, as far as that is known: of a DaemonSet one is. Given: as above. */}}
{{- define "tutti.most" -}}
{{- ternary .unit.scale.max .unit.replicas (ne (include "tutti.poolScales" .) "") -}}
{{- end }}

{{/* What a pool's worker is told. The node's id is stable where the endpoint is: an endpoint elsewhere is the pool, a DaemonSet's is the
     machine's; else it is the pod's. Given: root, unit (a pool with its defaults). */}}
{{- define "tutti.poolEnvironment" -}}
{{- $pool := .unit }}
{{- if $pool.url }}
- { name: TUTTI_WORKER__NODE, value: {{ include "tutti.name" .root }}-{{ $pool.name }} }
- { name: TUTTI_WORKER__URL, value: {{ $pool.url | quote }} }
{{- else }}
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: {{ ternary "spec.nodeName" "metadata.name" (eq $pool.kind "DaemonSet") }} } }
- { name: TUTTI_WORKER__NODE, value: {{ ternary (printf "$(NODE_NAME)-%s" $pool.name) "$(NODE_NAME)" (eq $pool.kind "DaemonSet") | quote }} }
{{- end }}
{{- if include "tutti.hasOllama" $pool }}
- { name: TUTTI_WORKER__URL, value: "http://127.0.0.1:11434" }
{{- end }}
- { name: TUTTI_WORKER__SLOTS, value: {{ $pool.slots | quote }} }
{{- range $setting := list "agents" "models" "tags" }}
{{- with index $pool $setting }}
- { name: TUTTI_WORKER__{{ upper $setting }}, value: {{ toJson . | quote }} }
{{- end }}
{{- end }}
{{- with $pool.apiKey }}
{{- if .name }}
- name: TUTTI_WORKER__API_KEY
  valueFrom: { secretKeyRef: { name: {{ .name }}, key: {{ .key }} } }
{{- end }}
{{- end }}
{{- include "tutti.settings" (dict "prefix" "TUTTI_WORKER__" "settings" $pool.settings) }}
{{- end }}

{{/* Ollama as a side container: there before the worker begins, with its models, and until it has ended. Only the pod can reach it.
     Given: root, unit. */}}
{{- define "tutti.ollama" -}}
{{- $ollama := .unit.ollama }}
{{- $gpus := ternary (dict $ollama.gpuResource $ollama.gpus) dict (gt (int $ollama.gpus) 0) }}
{{- $resources := deepCopy $ollama.resources }}
{{- $_ := set $resources "limits" (mergeOverwrite ($resources.limits | default dict) $gpus) }}
- name: ollama
  image: {{ include "tutti.image" (dict "own" $ollama.image "default" dict "tag" "latest") }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  restartPolicy: Always
  args: [serve]
  env:
    - { name: OLLAMA_HOST, value: "127.0.0.1:11434" }
    - { name: OLLAMA_MODELS, value: /models }
    - { name: OLLAMA_NUM_PARALLEL, value: {{ .unit.slots | quote }} }
    - { name: HOME, value: /models }
    {{- range $name, $value := $ollama.env }}
    - { name: {{ $name }}, value: {{ $value | quote }} }
    {{- end }}
  startupProbe: { exec: { command: [ollama, list] }, periodSeconds: 5, failureThreshold: 60 }
  {{- with $ollama.pull }}
  lifecycle:
    postStart:
      exec:
        command:
          - sh
          - -ec
          - |
            until ollama list >/dev/null 2>&1; do sleep 1; done
            for model in "$@"; do ollama pull "$model"; done
          - sh
          {{- range . }}
          - {{ . | quote }}
          {{- end }}
  {{- end }}
  resources: {{- toYaml $resources | nindent 4 }}
  {{- include "tutti.confined" . | nindent 2 }}
  volumeMounts: [{ name: models, mountPath: /models }, { name: tmp, mountPath: /tmp }]
{{- end }}

{{/* The volume of models. Given: storage. */}}
{{- define "tutti.models" -}}
name: models
{{- if .claim }}
persistentVolumeClaim: { claimName: {{ .claim }} }
{{- else if .hostPath }}
hostPath: { path: {{ .hostPath }}, type: DirectoryOrCreate }
{{- else if .size }}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .className }}
      storageClassName: {{ . }}
      {{- end }}
      resources: { requests: { storage: {{ .size }} } }
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}
