# The options of NixOS that our modules, tests and examples set: free data, but for what they read.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  free = mkOption { type = types.attrsOf types.anything; default = { }; };
  list = mkOption { type = types.listOf types.anything; default = [ ]; };
in
{
  options = {
    assertions = list;
    boot = free;
    environment.etc = free;
    environment.systemPackages = list;
    fileSystems = free;
    networking = free;
    security.pam.services = free;
    system.stateVersion = mkOption { type = types.str; default = "25.11"; };
    systemd.packages = list;
    systemd.services = free;
    systemd.tmpfiles.settings = free;
    time = free;
    users.groups = free;
    users.users = free;
    virtualisation = free;

    services.logrotate.settings = free;
    services.openssh = free;
    services.rabbitmq = {
      enable = lib.mkEnableOption "RabbitMQ";
      package = mkOption { type = types.anything; default = "/usr"; };
      port = mkOption { type = types.port; default = 5672; };
      dataDir = mkOption { type = types.path; default = "/var/lib/rabbitmq"; };
      listenAddress = mkOption { type = types.str; default = "127.0.0.1"; };
      managementPlugin.enable = lib.mkEnableOption "its management plugin";
      managementPlugin.port = mkOption { type = types.port; default = 15672; };
      configItems = free;
    };
  };
}
