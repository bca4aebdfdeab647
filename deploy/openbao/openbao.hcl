# One OpenBao node for docker-compose.yml: raft storage, unsealed by a static key that the operator keeps.
# For evaluation behind one host. In production: TLS on the listener, a KMS or transit seal, three nodes or more.
storage "raft" {
  path    = "/openbao/file"
  node_id = "compose-1"
}
api_addr     = "http://openbao:8200"
cluster_addr = "http://openbao:8201"

# An issue that is in flight when its job is revoked can land no later than this; the second look comes 15 s after.
default_max_request_duration = "10s"

listener "tcp" {
  address = "0.0.0.0:8200"
  # Plain HTTP stays inside the compose network and on the host's loopback; see docs/how-to/deployment.md before you publish it.
  tls_disable = true
}

seal "static" {
  current_key_id = "compose-1"
  current_key    = "file:///run/secrets/openbao_seal_key"
}

# Audit devices can only be declared here. One that cannot be written blocks every request, revocation too: standard output cannot fill a disk of ours.
audit "file" "main" {
  options { file_path = "stdout" }
}
