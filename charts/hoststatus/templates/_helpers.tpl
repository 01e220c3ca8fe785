{{- /* The labels by which Services, policies and Deployments find their pods. Call it with a component's name. */ -}}
{{- define "hoststatus.labels" -}}
app.kubernetes.io/name: hoststatus
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* The namespaces whose Leases are heartbeats, as JSON: kubelets, whose Nodes are mirrored, renew theirs in kube-node-lease. */ -}}
{{- define "hoststatus.leaseNamespaces" -}}
{{- $all := .Values.leaseNamespaces -}}
{{- if or .Values.nodeMirror.enabled (include "hoststatus.kubeletsReport" $) }}{{ $all = append $all "kube-node-lease" | uniq }}{{ end -}}
{{- toJson $all -}}
{{- end }}

{{- /* Says whether a ComputeService of the cluster has a kubelet for its reporter. What the mirror has made stays when it is switched off, and would be UNKNOWN for good if nobody read kube-node-lease any more. */ -}}
{{- define "hoststatus.kubeletsReport" -}}
{{- if .Capabilities.APIVersions.Has "compute.hoststatus.dev/v1alpha1/ComputeService" -}}
{{- range (lookup "compute.hoststatus.dev/v1alpha1" "ComputeService" "" "").items -}}
{{- if eq "kube-node-lease" (dig "spec" "leaseRef" "namespace" "" .) }}true{{ break }}{{ end -}}
{{- end -}}
{{- end -}}
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

{{- /* What all pods have in common. Call it with (list $ values), and with the component's name where several replicas are to be kept apart. */ -}}
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
{{- $tolerations := $values.tolerations }}
{{- $affinity := $values.affinity }}
{{- if gt (len .) 2 }}
{{- $labels := include "hoststatus.labels" (index . 2) | fromYaml }}
{{- $zone := dict "topologyKey" "topology.kubernetes.io/zone" "labelSelector" (dict "matchLabels" $labels) "matchLabelKeys" (list "pod-template-hash") }}
{{- $apart := list (dict "weight" 50 "podAffinityTerm" $zone) }}
{{- $affinity = merge (deepCopy $affinity) (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" $apart)) }}
{{- range list "not-ready" "unreachable" }}
{{- $tolerations = append $tolerations (dict "key" (printf "node.kubernetes.io/%s" .) "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" 30) }}
{{- end }}
{{- end }}
{{- with $tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $affinity }}
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

{{- /* One constraint alone: for the scheduler's choice a node counts only if it has the labels of all of them, and many clusters have none for zones. */ -}}
{{- define "hoststatus.spread" -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "hoststatus.labels" . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
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
