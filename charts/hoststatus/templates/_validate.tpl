{{- /*
Checks that values.schema.json cannot express, or not with a readable message: relations between values, and whatever the
binaries would refuse at start. All errors are reported at once.
*/ -}}
{{- define "hoststatus.validate" -}}
{{- $errors := list -}}
{{- $values := .Values -}}

{{- $needed := dict "manager" $values.manager.image "kubectl-hosts" $values.test.image -}}
{{- if $values.tenantAPI.enabled }}{{ $_ := set $needed "tenant-apiserver" $values.tenantAPI.image }}{{ end -}}
{{- if $values.novaAPI.enabled }}{{ $_ := set $needed "nova-api" $values.novaAPI.image }}{{ end -}}
{{- if $values.notifier.enabled }}{{ $_ := set $needed "notifier" $values.notifier.image }}{{ end -}}
{{- if $values.agent.enabled }}{{ $_ := set $needed "agent" $values.agent.image }}{{ end -}}
{{- $where := dict "manager" "manager.image" "tenant-apiserver" "tenantAPI.image" "nova-api" "novaAPI.image" "notifier" "notifier.image" "agent" "agent.image" "kubectl-hosts" "test.image" -}}
{{- $host := "([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)+(:[0-9]{1,5})?|localhost(:[0-9]{1,5})?|[A-Za-z0-9][-A-Za-z0-9]*:[0-9]{1,5}|\\[[0-9a-fA-F:]+\\](:[0-9]{1,5})?)" -}}
{{- $path := "(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)" -}}
{{- $missing := list -}}
{{- range $name := keys $needed | sortAlpha -}}
{{- $whole := get $needed $name -}}
{{- if not $whole }}{{ $missing = append $missing $name }}
{{- else if not (regexMatch (printf "^%s%s+(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?$" $host $path) $whole) -}}
{{- $errors = append $errors (printf "%s: %q is not a full image reference: set registry, path, and tag or digest, without a scheme, for example registry.example.com/hoststatus/%s:%s. Without a registry, nodes pull from a public one, where anybody may own the path" (get $where $name) $whole $name $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- if $values.image.registry -}}
{{- if contains "://" $values.image.registry -}}
{{- $errors = append $errors (printf "image.registry: %q has a scheme; an image reference has none: start with the registry, as in registry.example.com/hoststatus" $values.image.registry) -}}
{{- else if not (regexMatch (printf "^%s%s*$" $host $path) $values.image.registry) -}}
{{- $errors = append $errors (printf "image.registry: %q must be a registry with an optional path, for example registry.example.com/hoststatus, or localhost/hoststatus for images that are loaded into the nodes. Without a registry, nodes pull from a public one, where anybody may own the path" $values.image.registry) -}}
{{- end -}}
{{- else if $missing -}}
{{- $errors = append $errors (printf "image.registry is required: set it to where your images are, for example --set image.registry=registry.example.com/hoststatus. No images are published: see docs/operate/install.md. It is needed for the images %s, unless full references are set in %s" (join ", " $missing) (include "hoststatus.validate.places" (list $where $missing))) -}}
{{- end -}}

{{- if not (has "hoststatus-leases" ($values.leaseNamespaces | default list)) -}}
{{- $errors = append $errors (printf "leaseNamespaces: hoststatus-leases is not among %s: agents renew their Leases there. Add it, as in {hoststatus-leases,kube-node-lease}" (toJson $values.leaseNamespaces)) -}}
{{- end -}}

{{- $d := include "hoststatus.milliseconds" $values.manager.defaultLeaseDuration | float64 -}}
{{- if or (lt $d 3000.0) (gt $d 3600000.0) (ne (floor (divf $d 1000.0)) (divf $d 1000.0)) -}}
{{- $errors = append $errors (printf "manager.defaultLeaseDuration: %q must be whole seconds from 3s to 1h" $values.manager.defaultLeaseDuration) -}}
{{- end -}}
{{- $d = include "hoststatus.milliseconds" $values.agent.leaseDuration | float64 -}}
{{- if or (lt $d 3000.0) (gt $d 3600000.0) (ne (floor (divf $d 1000.0)) (divf $d 1000.0)) -}}
{{- $errors = append $errors (printf "agent.leaseDuration: %q must be whole seconds from 3s to 1h" $values.agent.leaseDuration) -}}
{{- end -}}
{{- $r := include "hoststatus.milliseconds" $values.agent.renewInterval | float64 -}}
{{- if or (lt $r 100.0) (gt (mulf 3.0 $r) $d) -}}
{{- $errors = append $errors (printf "agent.renewInterval: %q must be from 100ms to a third of agent.leaseDuration, which is %q, so that a renewal or two may fail" $values.agent.renewInterval $values.agent.leaseDuration) -}}
{{- end -}}

{{- $name := "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" -}}
{{- $label := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- $key := printf "(%s(\\.%s)*/)?%s" $label $label $name -}}
{{- $in := printf "\\([ \t]*((%s)?|(%s)?([ \t]*,[ \t]*(%s)?)+)[ \t]*\\)" $name $name $name -}}
{{- $term := printf "(![ \t]*%s|%s|%s[ \t]*(=|==|!=)[ \t]*(%s)?|%s[ \t]+(in|notin)[ \t]*%s|%s[ \t]*[<>][ \t]*[0-9]{1,18})" $key $key $key $name $key $in $key -}}
{{- range $mirror := list "nodeMirror" "vmiMirror" -}}
{{- with (index $values $mirror).selector -}}
{{- if not (regexMatch (printf "^[ \t]*(%s([ \t]*,[ \t]*%s)*)?[ \t]*$" $term $term) .) -}}
{{- $errors = append $errors (printf "%s.selector: %q must be a label selector as kubectl's -l takes it, for example hypervisor=true or 'zone in (a,b),!spare'" $mirror .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.nodeMirror.writeConditions (not $values.nodeMirror.enabled) -}}
{{- $errors = append $errors "nodeMirror.writeConditions is for mirrored Nodes: set nodeMirror.enabled=true, or leave it out" -}}
{{- end -}}

{{- if and $values.certificates.issuerRef (not $values.certificates.certManager) -}}
{{- $errors = append $errors "certificates.issuerRef is for cert-manager, which is off: set certificates.certManager=true, or leave issuerRef out" -}}
{{- end -}}
{{- with $values.certificates.issuerRef -}}
{{- if and .kind (has (.group | default "cert-manager.io") (list "cert-manager.io")) (not (has .kind (list "Issuer" "ClusterIssuer"))) -}}
{{- $errors = append $errors (printf "certificates.issuerRef.kind: %q must be Issuer or ClusterIssuer; one of another group needs certificates.issuerRef.group" .kind) -}}
{{- end -}}
{{- end -}}

{{- if and $values.novaAPI.plainHTTP $values.novaAPI.certificateSecret -}}
{{- $errors = append $errors "novaAPI.plainHTTP: without TLS there is no use for novaAPI.certificateSecret; leave one of them out" -}}
{{- end -}}

{{- if and $values.notifier.enabled (not $values.notifier.config) -}}
{{- $errors = append $errors "notifier.config: is required with notifier.enabled; it names the sinks, and what they are told" -}}
{{- end -}}
{{- if and $values.notifier.enabled (not $values.tenantAPI.enabled) -}}
{{- $errors = append $errors "notifier.enabled: it watches the owners' view, which is off: set tenantAPI.enabled=true" -}}
{{- end -}}

{{- range $list := list "webhookFrom" "metricsFrom" "novaFrom" "notifierTo" -}}
{{- range $i, $peer := index $values.networkPolicy $list -}}
{{- with $peer.ipBlock -}}
{{- range $cidr := concat (list .cidr) (.except | default list) -}}
{{- if not (regexMatch "^(((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])|[0-9a-fA-F]*:[0-9a-fA-F:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$" $cidr) -}}
{{- $errors = append $errors (printf "networkPolicy.%s[%d].ipBlock: %q must be an address range in CIDR notation, for example 10.0.0.0/28, or 10.0.0.1/32 for one address" $list $i $cidr) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $taken := dict -}}
{{- $ports := list (list "manager" "manager.metricsPort" $values.manager.metricsPort) (list "manager" "manager.probesPort" $values.manager.probesPort) -}}
{{- if $values.webhook.enabled }}{{ $ports = append $ports (list "manager" "webhook.port" $values.webhook.port) }}{{ end -}}
{{- if $values.tenantAPI.enabled }}{{ $ports = append $ports (list "tenantAPI" "tenantAPI.port" $values.tenantAPI.port) }}{{ end -}}
{{- if $values.novaAPI.enabled -}}
{{- range $port := list "port" "metricsPort" "probesPort" }}{{ $ports = append $ports (list "novaAPI" (printf "novaAPI.%s" $port) (index $values.novaAPI $port)) }}{{ end -}}
{{- end -}}
{{- if $values.notifier.enabled -}}
{{- range $port := list "metricsPort" "probesPort" }}{{ $ports = append $ports (list "notifier" (printf "notifier.%s" $port) (index $values.notifier $port)) }}{{ end -}}
{{- end -}}
{{- range $ports -}}
{{- $component := index . 0 -}}{{- $value := index . 1 -}}{{- $port := int (index . 2) -}}
{{- $node := (index $values $component).hostNetwork -}}
{{- $place := printf "%s:%d" (ternary "the nodes" $component $node) $port -}}
{{- with get $taken $place -}}
{{- $errors = append $errors (printf "%s: %d is already used by %s in the same network%s; choose another, for example %d" $value $port . (ternary ", because hostNetwork is on" "" $node) (add1 $port)) -}}
{{- end -}}
{{- $_ := set $taken $place $value -}}
{{- if and $node (has $port (list 10248 10249 10250 10256)) -}}
{{- $errors = append $errors (printf "%s: %d is used by the kubelet or kube-proxy, and %s.hostNetwork is on; choose another" $value $port $component) -}}
{{- end -}}
{{- if and $node (lt $port 1024) -}}
{{- $errors = append $errors (printf "%s: %d is below 1024, where only root may listen in the nodes' network, and %s.hostNetwork is on; choose 1024 or above" $value $port $component) -}}
{{- end -}}
{{- end -}}

{{- $keyed := dict "metrics.serviceMonitor.labels" $values.metrics.serviceMonitor.labels "metrics.prometheusRule.labels" $values.metrics.prometheusRule.labels "metrics.dashboard.labels" $values.metrics.dashboard.labels -}}
{{- if and (eq ($values.agent.driver | default "none") "fake") (not (regexMatch "(^| )--fake-driver-file=" (join " " $values.agent.extraArgs))) -}}
{{- $errors = append $errors "agent.driver: fake needs a file to read: add --fake-driver-file=PATH to agent.extraArgs, and mount the file with agent.extraVolumes" -}}
{{- end -}}
{{- if eq ($values.agent.driver | default "none") "libvirt" -}}
{{- if lt (include "hoststatus.milliseconds" $values.agent.libvirt.resync | float64) 1000.0 -}}
{{- $errors = append $errors (printf "agent.libvirt.resync: %q must be at least 1s" $values.agent.libvirt.resync) -}}
{{- end -}}
{{- if and $values.agent.libvirt.novaNamespace (not (has "nova" $values.agent.libvirt.identity)) -}}
{{- $errors = append $errors "agent.libvirt.novaNamespace: needs nova in agent.libvirt.identity" -}}
{{- end -}}
{{- end -}}
{{- range $arg := $values.agent.extraArgs -}}
{{- if hasPrefix "--libvirt-" $arg -}}
{{- $errors = append $errors (printf "agent.extraArgs: %q: set the value of agent.libvirt instead" $arg) -}}
{{- end -}}
{{- if hasPrefix "--driver" $arg -}}
{{- $errors = append $errors (printf "agent.extraArgs: %q: set agent.driver instead, which also gives the agents the right to report on servers" $arg) -}}
{{- end -}}
{{- end -}}
{{- range $component := list "manager" "tenantAPI" "novaAPI" "notifier" "agent" -}}
{{- range $map := list "podAnnotations" "podLabels" "serviceAccountAnnotations" "nodeSelector" -}}
{{- $_ := set $keyed (printf "%s.%s" $component $map) (index $values $component $map) -}}
{{- end -}}
{{- end -}}
{{- range $place := keys $keyed | sortAlpha -}}
{{- range $k, $_ := get $keyed $place -}}
{{- if not (regexMatch (printf "^%s$" $key) $k) -}}
{{- $errors = append $errors (printf "%s: %q is not a label or annotation key: use letters, digits, '-', '_' and '.', with an optional prefix, as in example.com/team" $place $k) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- range $component := list "manager" "tenantAPI" "novaAPI" "notifier" "agent" -}}
{{- $pod := index $values $component -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/component" -}}
{{- if hasKey ($pod.podLabels | default dict) $label -}}
{{- $errors = append $errors (printf "%s.podLabels: %s is set by the chart, to select the pods; leave it out" $component $label) -}}
{{- end -}}
{{- end -}}
{{- range $volume := $pod.extraVolumes -}}
{{- if or (eq $volume.name "certificate") (and (eq $volume.name "kube") (eq $component "novaAPI")) (and (has $volume.name (list "config" "secrets")) (eq $component "notifier")) -}}
{{- $errors = append $errors (printf "%s.extraVolumes: the name %s is used by the chart; choose another" $component $volume.name) -}}
{{- end -}}
{{- end -}}
{{- range $mount := $pod.extraVolumeMounts -}}
{{- $known := false -}}
{{- range $pod.extraVolumes }}{{ if eq .name $mount.name }}{{ $known = true }}{{ end }}{{ end -}}
{{- if not $known -}}
{{- $errors = append $errors (printf "%s.extraVolumeMounts: there is no %q among %s.extraVolumes; add it there" $component $mount.name $component) -}}
{{- end -}}
{{- end -}}
{{- range $variable := $pod.extraEnv -}}
{{- if and (eq $component "agent") (eq $variable.name "NODE_NAME") -}}
{{- $errors = append $errors "agent.extraEnv: NODE_NAME is set by the chart, as the name of the agent's host; leave it out" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with $errors -}}
{{- fail (printf "invalid values:\n- %s\n" (join "\n- " .)) -}}
{{- end -}}
{{- end }}

{{- /* The values that set full image references. Call it with (list where names). */ -}}
{{- define "hoststatus.validate.places" -}}
{{- $where := index . 0 -}}
{{- $places := list -}}
{{- range index . 1 }}{{ $places = append $places (get $where .) }}{{ end -}}
{{- join ", " $places -}}
{{- end }}

{{- /* A Go duration in milliseconds. */ -}}
{{- define "hoststatus.milliseconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(h|ms|m|s)" . -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) (get (dict "h" 3600000.0 "m" 60000.0 "s" 1000.0 "ms" 1.0) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end }}
