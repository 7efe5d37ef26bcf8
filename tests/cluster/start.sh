#!/usr/bin/env bash
# Starts one node of Kubernetes with Istio on this machine, and prints its KUBECONFIG.
# Everything listens on this machine and its pods only, and ends with stop.sh.
# shellcheck source=parts.sh
source "$(dirname "$0")/parts.sh"

"$CLUSTER/able.sh"
"$CLUSTER/build.sh"
export PATH="$BIN:$PATH"

if [ -e "$KUBECONFIG" ] && kubectl get --raw /readyz > /dev/null 2>&1; then
    say "it is running already"
    echo "$KUBECONFIG"
    exit 0
fi
[ ! -e "$RUN" ] || "$CLUSTER/stop.sh"
started=$SECONDS

HOST="$(ip -4 -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')"
[ -n "$HOST" ] || fail "this machine has no IPv4 address besides the loopback"
BRIDGE=sconce0
PODS=10.244.0
mkdir -p "$RUN"/{pid,log,cni} "$DATA"
mkdir -m 700 "$RUN/tls"

# --- Credentials that live as long as the cluster does.
token="$(openssl rand -hex 32)"
echo "$token,admin,admin,\"system:masters\"" > "$RUN/tls/tokens.csv"
openssl genrsa -out "$RUN/tls/service-account.key" 2048 2> /dev/null
# The API server shows it to the kubelet, which trusts nothing else.
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/O=system:masters/CN=apiserver" \
    -addext extendedKeyUsage=clientAuth -keyout "$RUN/tls/kubelet-client.key" -out "$RUN/tls/kubelet-client.crt" 2> /dev/null

# --- The network of the pods. It is made first, for CoreDNS to listen on.
ip link add "$BRIDGE" type bridge 2> /dev/null || true
ip address replace "$PODS.1/24" dev "$BRIDGE"
ip link set "$BRIDGE" up
echo 1 > /proc/sys/net/ipv4/ip_forward
cat > "$RUN/cni/10-sconce.conflist" << CNI
{ "cniVersion": "0.4.0", "name": "sconce", "plugins": [
  { "type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": { "type": "host-local", "dataDir": "$DATA/ipam",
              "ranges": [[{ "subnet": "$PODS.0/24", "rangeStart": "$PODS.10" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
CNI

# --- The control plane.
launch etcd etcd --data-dir "$DATA/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:16379 \
    --advertise-client-urls http://127.0.0.1:16379 --listen-peer-urls http://127.0.0.1:16380 \
    --initial-advertise-peer-urls http://127.0.0.1:16380 --initial-cluster default=http://127.0.0.1:16380
launch apiserver kube-apiserver --etcd-servers http://127.0.0.1:16379 --cert-dir "$RUN/tls" --secure-port 16443 \
    --bind-address "$HOST" --advertise-address "$HOST" --service-cluster-ip-range 10.96.0.0/16 \
    --service-account-issuer https://kubernetes.default.svc --authorization-mode Node,RBAC --allow-privileged \
    --service-account-signing-key-file "$RUN/tls/service-account.key" --service-account-key-file "$RUN/tls/service-account.key" \
    --token-auth-file "$RUN/tls/tokens.csv" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$RUN/tls/kubelet-client.crt" --kubelet-client-key "$RUN/tls/kubelet-client.key"
await "the API server has a certificate" apiserver 60 test -s "$RUN/tls/apiserver.crt"
install -m 600 /dev/null "$KUBECONFIG"
cat > "$KUBECONFIG" << CONFIG
apiVersion: v1
kind: Config
clusters: [{ name: sconce, cluster: { server: "https://$HOST:16443", certificate-authority: "$RUN/tls/apiserver.crt" } }]
users: [{ name: admin, user: { token: "$token" } }]
contexts: [{ name: sconce, context: { cluster: sconce, user: admin } }]
current-context: sconce
CONFIG
await "the API server is ready" apiserver 60 kubectl get --raw /readyz
launch controller-manager kube-controller-manager --kubeconfig "$KUBECONFIG" --leader-elect=false --cluster-cidr "$PODS.0/16" \
    --use-service-account-credentials --service-account-private-key-file "$RUN/tls/service-account.key" --root-ca-file "$RUN/tls/apiserver.crt"
launch scheduler kube-scheduler --kubeconfig "$KUBECONFIG" --leader-elect=false
printf '%s:53 {\n  bind %s\n  errors\n  kubernetes cluster.local in-addr.arpa {\n    kubeconfig %s\n  }\n}\n' \
    cluster.local "$PODS.1" "$KUBECONFIG" > "$RUN/Corefile"
launch coredns coredns -conf "$RUN/Corefile"
say "Kubernetes' API answers ($((SECONDS - started)) s)"

# --- The node.
cat > "$RUN/containerd.toml" << TOML
version = 2
root = "$DATA/containerd"
state = "$RUN/containerd"
[grpc]
  address = "$RUN/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  # This machine may lack CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$RUN/cni"
TOML
launch containerd containerd --config "$RUN/containerd.toml"
ctr() { command ctr --address "$RUN/containerd.sock" --namespace k8s.io "$@"; }
await "containerd answers" containerd 30 ctr version
for archive in "$IMAGES"/*.tar; do
    ctr images import "$archive" > /dev/null || fail "$archive cannot be imported"
done
cat > "$RUN/kubelet.yaml" << YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $HOST
authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: $RUN/tls/kubelet-client.crt } }
cgroupDriver: cgroupfs
failSwapOn: false
failCgroupV1: false
containerRuntimeEndpoint: unix://$RUN/containerd.sock
clusterDNS: [$PODS.1]
clusterDomain: cluster.local
resolvConf: ""
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
evictionHard: { memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%" }
imageGCHighThresholdPercent: 100
registerNode: true
YAML
launch kubelet kubelet --config "$RUN/kubelet.yaml" --kubeconfig "$KUBECONFIG" --root-dir "$DATA/kubelet" \
    --cert-dir "$RUN/tls/kubelet" --node-ip "$HOST" --hostname-override sconce
cat > "$RUN/kube-proxy.yaml" << YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: $KUBECONFIG }
clusterCIDR: $PODS.0/16
conntrack: { maxPerCore: 0, min: 0 }
hostnameOverride: sconce
metricsBindAddress: 127.0.0.1:10249
mode: iptables
YAML
launch kube-proxy kube-proxy --config "$RUN/kube-proxy.yaml"
await "the node has registered" kubelet 60 kubectl get node sconce
kubectl wait --for=condition=Ready node/sconce --timeout=60s > /dev/null || fail "the node is not ready; see $RUN/log/kubelet.log"
say "the node is ready ($((SECONDS - started)) s)"
# Volumes to claim, as there is no provisioner: each is claimed once, and keeps what was written to it.
for number in $(seq 64); do
    mkdir -p "$DATA/volumes/$number"
    cat << YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: volume-$number }
spec:
  capacity: { storage: 20Gi }
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: { path: "$DATA/volumes/$number" }
  nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key: kubernetes.io/hostname, operator: In, values: [sconce] }] }] } }
YAML
done | kubectl apply --server-side -f - > /dev/null

# --- The mesh, as its own installer puts it there.
kubectl apply --server-side -f "$PARTS/manifests/gateway-api" > /dev/null
# The three switches leave out filters that only Istio's own build of Envoy has: with one of them
# a stock Envoy refuses every listener.
istioctl install --skip-confirmation --readiness-timeout 120s --set profile=minimal \
    --set values.global.hub=localhost --set values.global.tag=1 --set values.global.imagePullPolicy=Never \
    --set values.telemetry.enabled=false --set values.pilot.env.PILOT_ENABLE_METADATA_EXCHANGE=false \
    --set values.pilot.env.PILOT_ENABLE_ALPN_FILTER=false --set values.pilot.resources.requests.cpu=10m \
    --set values.pilot.resources.requests.memory=64Mi --set values.global.proxy.resources.requests.cpu=10m \
    --set values.global.proxy.resources.requests.memory=32Mi > "$RUN/log/istioctl.log" 2>&1 \
    || { tail -20 "$RUN/log/istioctl.log" >&2; fail "Istio was not installed; see $RUN/log/istioctl.log"; }
say "the mesh is ready ($((SECONDS - started)) s)"
echo "$KUBECONFIG"
