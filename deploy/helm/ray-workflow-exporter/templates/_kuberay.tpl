{{/* Values for KubeRay's chart `ray-cluster`: a head pod with the exporter in it. */}}
{{- define "exporter.kuberay" -}}
{{- if .Values.storage.existingClaim }}
{{- fail "storage.existingClaim is for mode: storage. With inside-ray, mount the claim into head and workers by KubeRay's values, and set storage.uri to its folder." }}
{{- end -}}
# Installs the exporter into the head pod. Add your own values in a second file; a list there
# replaces the list here.
image:
  repository: {{ .Values.insideRay.image.repository }}
  tag: {{ .Values.insideRay.image.tag | quote }}
  pullPolicy: {{ .Values.insideRay.image.pullPolicy }}
head:
  {{- with .Values.storage.uri }}
  rayStartParams:
    storage: {{ . | quote }}
  {{- end }}
  initContainers:
    - name: ray-workflow-exporter
      image: {{ printf "%s:%s" .Values.insideRay.image.repository .Values.insideRay.image.tag }}
      imagePullPolicy: {{ .Values.insideRay.image.pullPolicy }}
      command:
        - /bin/sh
        - -c
        - |
          {{- $.Files.Get "scripts/install.sh" | trim | nindent 10 }}
      env:
        - name: FOLDER
          value: /opt/ray-workflow-exporter
        - name: PACKAGE
          value: {{ default (printf "ray-workflow-exporter==%s" .Chart.AppVersion) .Values.insideRay.package | quote }}
        - name: TIMEOUT_SECONDS
          value: {{ .Values.insideRay.timeoutSeconds | int | quote }}
        {{- with .Values.insideRay.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml .Values.insideRay.resources | nindent 8 }}
      # No runAsNonRoot: with an image whose user has a name only, the pod would not start.
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
        seccompProfile:
          type: RuntimeDefault
      volumeMounts:
        - name: ray-workflow-exporter
          mountPath: /opt/ray-workflow-exporter
  # KubeRay runs this before `ray start`.
  command: ["sh /opt/ray-workflow-exporter/start.sh || true"]
  containerEnv:
    {{- include "exporter.env" . | nindent 4 }}
  {{- with .Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  # KubeRay's own ports, and `workflows`.
  ports:
    - name: gcs-server
      containerPort: 6379
    - name: dashboard
      containerPort: 8265
    - name: client
      containerPort: 10001
    - name: serve
      containerPort: 8000
    - name: workflows
      containerPort: 20729
  podSecurityContext:
    fsGroup: 100 # the group of the user of Ray's images
  volumeMounts:
    - name: log-volume # as in KubeRay's chart
      mountPath: /tmp/ray
    - name: ray-workflow-exporter
      mountPath: /opt/ray-workflow-exporter
    {{- include "exporter.volumeMounts" . | nindent 4 }}
  volumes:
    - name: log-volume
      emptyDir: {}
    - name: ray-workflow-exporter
      emptyDir:
        sizeLimit: 1Gi
    - name: ray-workflow-exporter-state
      {{- with .Values.state.existingClaim }}
      persistentVolumeClaim:
        claimName: {{ . }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- with include "exporter.secretVolumes" . }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
