{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "exporter.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "exporter.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "exporter.labels" -}}
{{ include "exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels by which a Prometheus operator selects, and more. */}}
{{- define "exporter.monitorLabels" -}}
{{ include "exporter.labels" .root }}
{{- with .root.Values.prometheusRelease }}
release: {{ . | quote }}
{{- end }}
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "exporter.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "exporter.storage" -}}
{{- if .Values.storage.existingClaim }}
{{- default "/storage" .Values.storage.uri }}
{{- else }}
{{- .Values.storage.uri }}
{{- end }}
{{- end }}

{{/* Names of the Secrets with the tokens and the web config; empty without one. */}}
{{- define "exporter.tokensSecret" -}}
{{- if .Values.tokens.existingSecret }}
{{- .Values.tokens.existingSecret }}
{{- else if .Values.tokens.content }}
{{- include "exporter.fullname" . }}-tokens
{{- end }}
{{- end }}

{{- define "exporter.webConfigSecret" -}}
{{- if .Values.webConfig.existingSecret }}
{{- .Values.webConfig.existingSecret }}
{{- else if .Values.webConfig.content }}
{{- include "exporter.fullname" . }}-web-config
{{- end }}
{{- end }}

{{- define "exporter.scheme" -}}
{{- if or .Values.webConfig.tls (hasKey .Values.webConfig.content "tls_server_config") }}https{{ else }}http{{ end }}
{{- end }}

{{/* Environment of the exporter that both modes share. Numbers as JSON: Go would write 1e+06. */}}
{{- define "exporter.env" -}}
- name: RAY_WORKFLOW_EXPORTER_STATE_DIR
  value: /var/lib/ray-workflow-exporter
{{- if include "exporter.tokensSecret" . }}
- name: RAY_WORKFLOW_EXPORTER_TOKENS_FILE
  value: /etc/ray-workflow-exporter/tokens/tokens.yaml
{{- end }}
{{- if include "exporter.webConfigSecret" . }}
- name: RAY_WORKFLOW_EXPORTER_WEB_CONFIG_FILE
  value: /etc/ray-workflow-exporter/web-config/web-config.yaml
{{- end }}
{{- range $key, $value := .Values.settings }}
- name: RAY_WORKFLOW_EXPORTER_{{ upper $key }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else if kindIs "slice" $value }}{{ join "," $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "exporter.volumeMounts" -}}
- name: ray-workflow-exporter-state
  mountPath: /var/lib/ray-workflow-exporter
{{- if include "exporter.tokensSecret" . }}
- name: ray-workflow-exporter-tokens
  mountPath: /etc/ray-workflow-exporter/tokens
  readOnly: true
{{- end }}
{{- if include "exporter.webConfigSecret" . }}
- name: ray-workflow-exporter-web-config
  mountPath: /etc/ray-workflow-exporter/web-config
  readOnly: true
{{- end }}
{{- end }}

{{/* The state volume is given: its claim is another in each mode. */}}
{{- define "exporter.secretVolumes" -}}
{{- with include "exporter.tokensSecret" . }}
- name: ray-workflow-exporter-tokens
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with include "exporter.webConfigSecret" . }}
- name: ray-workflow-exporter-web-config
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{/* What PodMonitor and ServiceMonitor say of the endpoint. */}}
{{- define "exporter.endpoint" -}}
interval: {{ .Values.monitor.interval }}
{{- if eq (include "exporter.scheme" .) "https" }}
scheme: https
{{- end }}
{{- with .Values.monitor.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.monitor.authorization }}
authorization:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.monitor.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
relabelings:
  # The alerts expect this job. `cluster` tells clusters apart, `ray_io_cluster` as in Ray's metrics.
  - targetLabel: job
    replacement: ray-workflow
  - sourceLabels: [__meta_kubernetes_namespace]
    targetLabel: namespace
{{- end }}
