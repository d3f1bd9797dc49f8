{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "kmesh.labels" -}}
app.kubernetes.io/name: kmesh
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "kmesh.selector" -}}
app: kmesh
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kmesh.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "kmesh.source" -}}
{{- if eq .Values.source "kubernetes" }}kubernetes{{ else }}istiod:{{ .Values.xds.address }}{{ end }}
{{- end }}

{{/* Named capabilities, never privileged: the kernel's BPF, network namespaces, and cgroup2's root, whose mode is 0555. */}}
{{- define "kmesh.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
  add:
    - SYS_ADMIN
    - NET_ADMIN
    - DAC_OVERRIDE
    {{- if .Values.waypoint.node.enabled }}
    # The directory of the node's waypoint belongs to Envoy's user.
    - CHOWN
    {{- end }}
    {{- range .Values.extraCapabilities }}
    - {{ . }}
    {{- end }}
{{- end }}

{{- define "kmesh.hostMounts" -}}
- name: run
  mountPath: /run/kmesh
- name: bpf
  mountPath: /sys/fs/bpf
  mountPropagation: HostToContainer
- name: cgroup
  mountPath: /sys/fs/cgroup
  mountPropagation: HostToContainer
- name: netns
  mountPath: /run/netns
  mountPropagation: HostToContainer
- name: tmp
  mountPath: /tmp
{{- if .Values.cni.enabled }}
- name: cni-bin
  mountPath: /host/cni/bin
- name: cni-conf
  mountPath: /host/cni/net.d
{{- end }}
{{- if .Values.nodeFeature.enabled }}
- name: features
  mountPath: /host/features.d
{{- end }}
{{- if .Values.kernelHeaders }}
- name: modules
  mountPath: /lib/modules
  readOnly: true
- name: sources
  mountPath: /usr/src
  readOnly: true
{{- end }}
{{- end }}

{{- define "kmesh.hostVolumes" -}}
- name: run
  hostPath:
    path: {{ .Values.hostPaths.run }}
    type: DirectoryOrCreate
- name: bpf
  hostPath:
    path: {{ .Values.hostPaths.bpf }}
    type: Directory
- name: cgroup
  hostPath:
    path: {{ .Values.hostPaths.cgroup }}
    type: Directory
- name: netns
  hostPath:
    path: {{ .Values.hostPaths.netns }}
    type: DirectoryOrCreate
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 64Mi
{{- if .Values.cni.enabled }}
- name: cni-bin
  hostPath:
    path: {{ .Values.cni.binDir }}
    type: DirectoryOrCreate
- name: cni-conf
  hostPath:
    path: {{ .Values.cni.confDir }}
    type: DirectoryOrCreate
{{- end }}
{{- if .Values.nodeFeature.enabled }}
- name: features
  hostPath:
    path: {{ .Values.nodeFeature.dir }}
    type: DirectoryOrCreate
{{- end }}
{{- if .Values.kernelHeaders }}
- name: modules
  hostPath:
    path: /lib/modules
- name: sources
  hostPath:
    path: /usr/src
{{- end }}
{{- end }}

{{- define "kmesh.placement" -}}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "kmesh.apiServer" -}}
{{- with .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
{{- end }}
{{- with .Values.apiServer.port }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ . | quote }}
{{- end }}
{{- end }}
