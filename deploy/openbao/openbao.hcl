# One OpenBao node for docker-compose.yml: raft storage, unsealed by a static key. TLS by the installation's own CA (deploy/compose/prepare.py).
# Key and data are on one machine. In production: a KMS or transit seal, three nodes or more (docs/how-to/containers.md).
storage "raft" {
  path    = "/openbao/file"
  node_id = "compose-1"
}
api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

# If an issue is in flight when its job is revoked, its credential appears no later than this; the second check follows after 15 s.
default_max_request_duration = "10s"

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/run/secrets/openbao/tls.pem"
  tls_key_file  = "/run/secrets/openbao/tls.key"
}

seal "static" {
  current_key_id = "compose-1"
  current_key    = "file:///run/secrets/openbao/seal.key"
}

# Audit devices can only be declared here. A device that cannot be written blocks every request, including revocations. Standard output cannot fill our disk.
audit "file" "main" {
  options { file_path = "stdout" }
}
