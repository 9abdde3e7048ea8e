{{- define "vasevqa.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vasevqa.selector" -}}
app.kubernetes.io/name: vasevqa
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The label helm.sh/chart is left out: these labels are also in pod templates, and the template of a Job can't change. */}}
{{- define "vasevqa.labels" -}}
{{- with .Values.labels }}{{ toYaml . }}
{{ end -}}
{{ include "vasevqa.selector" . }}
app.kubernetes.io/part-of: vasevqa
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "vasevqa.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "vasevqa.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create=false needs serviceAccount.name; give the name of a service account that has the launcher's role." .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "vasevqa.claim" -}}
{{- default (include "vasevqa.fullname" .) .Values.volume.existingClaim -}}
{{- end -}}

{{- define "vasevqa.tag" -}}
{{- default .Chart.AppVersion .Values.tag -}}
{{- end -}}

{{/* The image of a stage. The argument is a dict, such as: dict "root" $ "stage" "launcher". */}}
{{- define "vasevqa.image" -}}
{{- $values := .root.Values -}}
{{- $prefix := ternary (printf "%s/" (trimSuffix "/" $values.registry)) "" (ne $values.registry "") -}}
{{- default (printf "%svasevqa/%s:%s" $prefix .stage (include "vasevqa.tag" .root)) (get $values.images .stage) -}}
{{- end -}}

{{/* The Cluster file: the values as data for the renderer, which is in Python. Empty values are left out; the renderer then uses its defaults. */}}
{{- define "vasevqa.cluster" -}}
{{- $v := .Values -}}
{{- $all := dict "registry" $v.registry "tag" (include "vasevqa.tag" .) "images" $v.images "environment" $v.environment
  "claim" (include "vasevqa.claim" .) "claim_path" $v.volume.path "pull_policy" $v.pullPolicy "pull_secrets" $v.pullSecrets "secrets" $v.secrets
  "gpu_resource" $v.gpu.resource "gpu_product" $v.gpu.product "gpu_memory_label" $v.gpu.memoryLabel "gpu_product_label" $v.gpu.productLabel
  "node_selector" $v.nodeSelector "tolerations" $v.tolerations "priority_class" $v.priorityClass "runtime_class" $v.runtimeClass
  "queue" $v.queue "labels" $v.labels "annotations" $v.annotations "service_account" (include "vasevqa.serviceAccount" .) -}}
{{- $kept := dict "user" (int64 $v.user) "group" (int64 $v.group) -}}
{{- range $name, $value := $all }}{{ if $value }}{{ $_ := set $kept $name $value }}{{ end }}{{ end -}}
{{- $proxy := dict -}}
{{- range $name, $value := $v.proxy }}{{ if $value }}{{ $_ := set $proxy (ternary "no" $name (eq $name "exclude")) $value }}{{ end }}{{ end -}}
{{- if $proxy }}{{ $_ := set $kept "proxy" $proxy }}{{ end -}}
{{- toYaml $kept -}}
{{- end -}}

{{- define "vasevqa.recipe" -}}
{{- if kindIs "string" .Values.recipe }}{{ .Values.recipe }}{{ else if .Values.recipe }}{{ toYaml .Values.recipe }}{{ end -}}
{{- end -}}

{{- define "vasevqa.arguments" -}}
{{- $words := list "submit" "/etc/vasevqa/recipe.yaml" "--cluster" "/etc/vasevqa/cluster.yaml" "--detach" "--parallel" (toString .Values.parallel) -}}
{{- range .Values.steps }}{{ $words = concat $words (list "--only" .) }}{{ end -}}
{{- range .Values.set }}{{ $words = concat $words (list "--set" .) }}{{ end -}}
{{- toYaml $words -}}
{{- end -}}

{{/* The settings that the level "restricted" of Pod Security requires of a pod, and of a container. */}}
{{- define "vasevqa.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.user }}
runAsGroup: {{ int64 .Values.group }}
fsGroup: {{ int64 .Values.group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "vasevqa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The nodes on which the chart's pods may run, and the credentials for their images. */}}
{{- define "vasevqa.placement" -}}
{{- with .Values.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClass }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
