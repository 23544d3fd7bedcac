# A hub with RabbitMQ, and an endpoint of two accounts with PAM: each one's function runs as that one, in a slice of the endpoint's.
{ modules }:
let
  clients = {
    cluster = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c01";
    alice = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c03";
    bob = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c04";
  };
  secret = text: { inherit text; mode = "0600"; };
in
{
  name = "compute-endpoint-multi-user";

  nodes.machine = {
    imports = [ modules.default ];
    virtualisation.memorySize = 3072;
    users.users.alice = { isNormalUser = true; uid = 1000; };
    users.users.bob = { isNormalUser = true; uid = 1001; };
    # In the store, so for a test only.
    environment.etc = {
      "secrets/broker" = secret "a-password-of-the-test\n";
      "secrets/cluster" = secret "a-secret-of-the-cluster\n";
      "secrets/alice" = secret "a-secret-of-alice\n";
      "secrets/bob" = secret "a-secret-of-bob\n";
    };

    services.compute-hub = {
      enable = true;
      broker.enable = true;
      brokerPasswordFile = "/etc/secrets/broker";
    };
    services.globus-compute-endpoint = {
      hub = "http://localhost:5000";
      endpoints.cluster = {
        kind = "multi-user";
        template.data.engine = { type = "ThreadPoolEngine"; max_workers = 2; };
        identityMapping = [
          {
            DATA_TYPE = "expression_identity_mapping#1.0.0";
            mappings = [ { source = "{username}"; match = "(.*)@lab\\.example"; output = "{0}"; } ];
          }
        ];
        pam = { };
        policy.minimum_uid = 1000;
        limitsPerUser = { memory_max = "1G"; tasks_max = 512; };
        clientId = clients.cluster;
        clientSecretFile = "/etc/secrets/cluster";
        running = false;
      };
    };
  };

  testScript = ''
    service = "GLOBUS_SDK_ENVIRONMENT=local GLOBUS_SDK_SERVICE_URL_AUTH=http://localhost:5000/ GLOBUS_SDK_SERVICE_URL_COMPUTE=http://localhost:5000"
    clients = {"cluster": "${clients.cluster}", "alice": "${clients.alice}", "bob": "${clients.bob}"}

    machine.wait_for_unit("compute-hub.service")
    for name, client in clients.items():
        machine.succeed(
            f"compute-hub client create {name} --id {client} --username {name}@lab.example --secret-stdin"
            f" --database /var/lib/compute-hub/hub.db < /etc/secrets/{name}"
        )
    machine.succeed("systemctl start globus-compute-endpoint@cluster.service")

    for name in ("alice", "bob"):
        with subtest(f"{name}'s function runs as {name}, in the endpoint's slice"):
            machine.succeed(
                f"{service} globus-compute-endpoint --config-dir /var/lib/globus-compute-endpoint health cluster"
                f" --client-id {clients[name]} --client-secret-file /etc/secrets/{name} --user {name}"
            )
            uid = machine.succeed(f"id -u {name}").strip()
            assert "MemoryMax=1073741824" in machine.succeed(f"systemctl show gce-cluster-{uid}.slice --property=MemoryMax")

    with subtest("a restart leaves user endpoints alone"):
        before = machine.succeed("pgrep -u alice -f _start-user-endpoint")
        machine.succeed("systemctl restart globus-compute-endpoint@cluster.service")
        assert machine.succeed("pgrep -u alice -f _start-user-endpoint") == before
  '';
}
