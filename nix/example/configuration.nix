# The same site as ansible/inventory/example/site.yml describes.
{
  # The host's own: `nixos-generate-config` writes it.
  # imports = [ ./hardware-configuration.nix ];
  networking.hostName = "compute1";
  system.stateVersion = "25.11";

  # Secrets are files on the host, root's with mode 0600, put there by whatever the site has for that (sops-nix, agenix, by hand).
  # The hub's clients are made once: compute-hub client create NAME --id ID --secret-stdin --database /var/lib/compute-hub/hub.db
  services.compute-hub = {
    enable = true;
    broker.enable = true;
    brokerPasswordFile = "/run/secrets/broker_password";
  };

  services.globus-compute-endpoint = {
    hub = "http://localhost:5000";

    # For everybody who has an account on the host: each function runs as the user who submitted it.
    endpoints.cluster = {
      kind = "multi-user";
      settings.display_name = "The cluster's endpoint";
      template.data = {
        idle_heartbeats_soft = 10;
        engine = {
          type = "GlobusComputeEngine";
          max_workers_per_node = "{{ workers | default(1) }}";
          provider.type = "LocalProvider";
          provider.max_blocks = 1;
        };
      };
      userOptionsSchema = {
        type = "object";
        additionalProperties = false;
        properties.workers = { type = "integer"; minimum = 1; maximum = 4; description = "How many functions run at a time."; };
      };
      identityMapping = [
        {
          DATA_TYPE = "expression_identity_mapping#1.0.0";
          mappings = [ { source = "{username}"; match = "(.*)@lab\\.example"; output = "{0}"; } ];
        }
      ];
      pam = { };
      policy = { minimum_uid = 1000; max_user_endpoints_per_user = 5; };
      limitsPerUser = { memory_max = "4G"; tasks_max = 512; };
      clientId = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c01";
      clientSecretFile = "/run/secrets/cluster_client_secret";
    };

    # For one account, with the same configuration for every function.
    endpoints.lab = {
      kind = "single-user";
      user = "carol";
      settings.display_name = "The lab's endpoint";
      template.data.engine = { type = "ThreadPoolEngine"; max_workers = 2; };
      clientId = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c02";
      clientSecretFile = "/run/secrets/lab_client_secret";
    };
  };

  users.users.carol.isNormalUser = true;
}
