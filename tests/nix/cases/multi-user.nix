# Many accounts with PAM's lines of the site's own, limits, and a hub with an authority of its own.
{
  services.globus-compute-endpoint = {
    hub = "https://hub.example.org/";
    ca = "/etc/ssl/certs/site.pem";
    endpoints."my-lab.1" = {
      kind = "multi-user";
      template.data.engine = { type = "ThreadPoolEngine"; max_workers = "{{ workers | default(1) }}"; };
      userOptionsSchema = { type = "object"; properties.workers = { type = "integer"; maximum = 8; }; };
      identityMapping = [
        { DATA_TYPE = "expression_identity_mapping#1.0.0"; mappings = [ { source = "{username}"; match = "(.*)@lab\\.example"; output = "{0}"; } ]; }
      ];
      pam.service = "compute-lab";
      pam.stack = [ "account required pam_unix.so" "session required pam_limits.so" ];
      policy.required_groups = [ "hpc-users" ];
      limits.memory_max = "64G";
      limitsPerUser = { memory_max = 1073741824; memory_high = "50%"; tasks_max = 512; cpu_quota = 200; cpu_weight = 50; io_weight = 20; };
      clientId = "11111111-1111-4111-8111-111111111111";
      clientSecretFile = "/run/secrets/lab";
    };
  };
}
