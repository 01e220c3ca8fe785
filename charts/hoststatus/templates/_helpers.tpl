{{- /* The labels by which Services, policies and Deployments find their pods. Call it with a component's name. */ -}}
{{- define "hoststatus.labels" -}}
app.kubernetes.io/name: hoststatus
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* The namespaces whose Leases are heartbeats, as JSON: kubelets, whose Nodes are mirrored, renew theirs in kube-node-lease. */ -}}
{{- define "hoststatus.leaseNamespaces" -}}
{{- $all := .Values.leaseNamespaces -}}
{{- if .Values.nodeMirror.enabled }}{{ $all = append $all "kube-node-lease" | uniq }}{{ end -}}
{{- toJson $all -}}
{{- end }}

{{- /* The labels of what others look for. Call it with those that the values add. */ -}}
{{- define "hoststatus.found" -}}
{{- mergeOverwrite (dict "app.kubernetes.io/name" "hoststatus") . | toYaml -}}
{{- end }}

{{- /* The image of a binary. Call it with (list $ name override). */ -}}
{{- define "hoststatus.image" -}}
{{- $root := index . 0 -}}
{{- index . 2 | default (printf "%s/%s:%s" $root.Values.image.registry (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion)) -}}
{{- end }}

{{- /* What all pods have in common. Call it with (list $ values). */ -}}
{{- define "hoststatus.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{ include "hoststatus.podSecurityContext" $root }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hoststatus.podSecurityContext" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "hoststatus.securityContext" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "hoststatus.spread" -}}
topologySpreadConstraints:
{{- $component := . }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "hoststatus.labels" $component | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- /* DNS and the API server. */ -}}
{{- define "hoststatus.egress" -}}
egress:
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
- ports:
  {{- range .Values.networkPolicy.apiServerPorts }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
{{- end }}
