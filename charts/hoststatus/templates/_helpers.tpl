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

{{- /* Whether a ComputeService in the cluster has a kubelet as its reporter. What the mirror created stays after it is turned off, and would be UNKNOWN forever if nothing read kube-node-lease. */ -}}
{{- define "hoststatus.kubeletsReport" -}}
{{- if .Capabilities.APIVersions.Has "compute.hoststatus.dev/v1alpha1/ComputeService" -}}
{{- range (lookup "compute.hoststatus.dev/v1alpha1" "ComputeService" "" "").items -}}
{{- if eq "kube-node-lease" (dig "spec" "leaseRef" "namespace" "" .) }}true{{ break }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The labels by which monitoring finds objects. Call it with those that the values add. */ -}}
{{- define "hoststatus.found" -}}
{{- mergeOverwrite (dict "app.kubernetes.io/name" "hoststatus") . | toYaml -}}
{{- end }}

{{- /* The image of a binary. Call it with (list $ name override). */ -}}
{{- define "hoststatus.image" -}}
{{- $root := index . 0 -}}
{{- index . 2 | default (printf "%s/%s:%s" $root.Values.image.registry (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion)) -}}
{{- end }}

{{- /* What all pods have in common. Call it with (list $ values ports), where ports are those that the pod listens on; append the component's name to spread its replicas. */ -}}
{{- define "hoststatus.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with $values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" ($values.hostNetwork | default false)) }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $values.hostAliases }}
hostAliases:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{ include "hoststatus.podSecurityContext" (list $root (index (append . list) 2)) }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := $values.tolerations }}
{{- $affinity := $values.affinity }}
{{- if gt (len .) 3 }}
{{- $labels := include "hoststatus.labels" (index . 3) | fromYaml }}
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

{{- /* Call it with (list $ ports). */ -}}
{{- define "hoststatus.podSecurityContext" -}}
{{- $low := false }}
{{- range index . 1 }}{{ if lt (int .) 1024 }}{{ $low = true }}{{ end }}{{ end -}}
securityContext:
  runAsNonRoot: true
  {{- with (index . 0).Values.securityContext.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
  {{- if $low }}
  # Not every container engine lets a user who is not root listen below 1024.
  sysctls:
  - name: net.ipv4.ip_unprivileged_port_start
    value: "0"
  {{- end }}
{{- end }}

{{- /* In the nodes' network a new pod cannot start beside the old one, whose ports it needs. Call it with the values. */ -}}
{{- define "hoststatus.strategy" -}}
{{- if .hostNetwork -}}
strategy:
  rollingUpdate:
    maxSurge: 0
    maxUnavailable: 1
{{- end }}
{{- end }}

{{- /* The container's volume mounts. Call it with (list values certificate), where certificate is the name of its Secret, or "". */ -}}
{{- define "hoststatus.volumeMounts" -}}
{{- $mounts := (index . 0).extraVolumeMounts | default list }}
{{- if index . 1 }}{{ $mounts = prepend $mounts (dict "name" "certificate" "mountPath" "/certificate" "readOnly" true) }}{{ end }}
{{- with $mounts -}}
volumeMounts:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- /* The volumes of a pod. Call it with (list values certificate), as above. */ -}}
{{- define "hoststatus.volumes" -}}
{{- $volumes := (index . 0).extraVolumes | default list }}
{{- with index . 1 }}{{ $volumes = prepend $volumes (dict "name" "certificate" "secret" (dict "secretName" .)) }}{{ end }}
{{- with $volumes -}}
volumes:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "hoststatus.securityContext" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /*
  How pods are spread. Call it with (list $component values). Only one constraint by
  default: the scheduler counts only nodes that have the labels of all constraints, and
  many clusters have none for zones.
*/ -}}
{{- define "hoststatus.spread" -}}
{{- $component := index . 0 }}
{{- $own := (index . 1).topologySpreadConstraints }}
{{- if kindIs "slice" $own }}
{{- with $own -}}
topologySpreadConstraints:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- else -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
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
