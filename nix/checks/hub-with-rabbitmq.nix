# A hub with RabbitMQ through services.rabbitmq: its administrator is made, guest is gone, and the hub comes back with its broker.
{ modules }:
{
  name = "compute-hub-with-rabbitmq";

  nodes.machine = {
    imports = [ modules.hub ];
    virtualisation.memorySize = 2048;
    # In the store, so for a test only.
    environment.etc."secrets/broker" = { text = "a-password-of-the-test\n"; mode = "0600"; };

    services.compute-hub = {
      enable = true;
      broker.enable = true;
      brokerPasswordFile = "/etc/secrets/broker";
      settings.times.start_wait = 30;
    };
  };

  testScript = ''
    machine.wait_for_unit("compute-hub.service")
    machine.wait_for_open_port(5000)

    with subtest("the broker has the hub's administrator, and no guest"):
        users = machine.succeed("HOME=/var/lib/rabbitmq runuser -u rabbitmq -- rabbitmqctl --quiet list_users")
        assert "compute-hub" in users and "guest" not in users, users

    with subtest("the password is in no process's arguments or environment"):
        machine.fail("grep -az a-password-of-the-test /proc/[0-9]*/cmdline /proc/[0-9]*/environ")

    with subtest("the hub is there again after its broker was away"):
        machine.succeed("systemctl restart rabbitmq.service")
        machine.wait_for_unit("compute-hub.service")
        machine.wait_until_succeeds("compute-hub client create lab --json --database /var/lib/compute-hub/hub.db")
  '';
}
