{{- define "sconce.labels" -}}
app.kubernetes.io/name: sconce
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Everything that Pod Security `restricted` wants. */ -}}
{{- define "sconce.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "sconce.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "sconce.roles" -}}
{{- $roles := list (printf "spiffe://%s/ns/%s/sa/operator=operator" .Values.trustDomain .Release.Namespace) -}}
{{- range $id, $role := .Values.controlPlane.roles -}}
{{- $roles = append $roles (printf "%s=%s" $id $role) -}}
{{- end -}}
{{- join "," $roles -}}
{{- end }}
