# A hub with its own broker, and an endpoint of one account: a function runs as that account.
{ modules }:
let
  client = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c02";
in
{
  name = "compute-endpoint-single-user";

  nodes.machine = {
    imports = [ modules.default ];
    virtualisation.memorySize = 2048;
    users.users.alice = { isNormalUser = true; uid = 1000; };
    # In the store, so for a test only.
    environment.etc."secrets/lab" = { text = "a-secret-of-the-test\n"; mode = "0600"; };

    services.compute-hub.enable = true;
    services.globus-compute-endpoint = {
      hub = "http://localhost:5000";
      endpoints.lab = {
        kind = "single-user";
        user = "alice";
        template.data.engine = { type = "ThreadPoolEngine"; max_workers = 2; };
        clientId = client;
        clientSecretFile = "/etc/secrets/lab";
        # The test makes the client first.
        running = false;
      };
    };
  };

  testScript = ''
    service = "GLOBUS_SDK_ENVIRONMENT=local GLOBUS_SDK_SERVICE_URL_AUTH=http://localhost:5000/ GLOBUS_SDK_SERVICE_URL_COMPUTE=http://localhost:5000"

    machine.wait_for_unit("compute-hub.service")
    machine.succeed("compute-hub client create lab --id ${client} --secret-stdin --directory /var/lib/compute-hub < /etc/secrets/lab")
    machine.succeed("systemctl start globus-compute-endpoint@lab.service")
    machine.wait_for_unit("globus-compute-endpoint@lab.service")

    with subtest("a function runs as the account"):
        machine.succeed(
            f"{service} globus-compute-endpoint --config-dir /home/alice/.globus_compute health lab"
            " --client-id ${client} --client-secret-file /etc/secrets/lab --user alice"
        )

    with subtest("the secret is in no process's arguments or environment"):
        machine.fail("grep -az a-secret-of-the-test /proc/[0-9]*/cmdline /proc/[0-9]*/environ")

    with subtest("it comes again after a reboot"):
        machine.succeed("systemctl stop globus-compute-endpoint@lab.service")
        machine.shutdown()
        machine.start()
        machine.wait_for_unit("compute-hub.service")
        machine.succeed("systemctl start globus-compute-endpoint@lab.service")
  '';
}
