# services.globus-compute-endpoint: endpoints, any number on a host. endpoint.nix says what is made of each.
#
# A unit's text is the one that Ansible's role writes, rendered by the package from the same template, and comes to the system
# as a package's unit does (systemd.packages). What only NixOS knows (when to restart, PATH, what boot starts) is a drop-in.
{ packages }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkMerge mkOption types;

  cfg = config.services.globus-compute-endpoint;
  ours = import ./module-lib.nix {
    inherit lib pkgs;
    program = cfg.package;
    check = cfg.checkConfig;
  };
  made = import ./endpoint.nix { inherit cfg lib ours; accounts = config.users.users; };
  enabled = lib.mapAttrsToList (name: one: made (one // { inherit name; })) (lib.filterAttrs (_: one: one.enable) cfg.endpoints);
in
{
  options.services.globus-compute-endpoint = {
    package = mkOption {
      type = types.package;
      default = packages.${pkgs.stdenv.hostPlatform.system}.endpoint;
      defaultText = lib.literalExpression "the package `endpoint` of the flake that this module comes from";
      example = lib.literalExpression "pkgs.globus-compute-endpoint";
      description = "The program.";
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether `check-config` checks each file while the system is built. It runs the program, so turn it off where a system is built for another kind of processor.";
    };

    hub = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "https://hub.example.org/";
      description = "The address of a hub that the endpoints belong to; without it, they belong to the public service.";
    };

    ca = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/etc/ssl/certs/site.pem";
      description = "A file with the authorities to believe, in place of the system's. Tasks get it as `SSL_CERT_FILE` too.";
    };

    endpoints = mkOption {
      type = types.attrsOf (types.submodule (import ./endpoint-options.nix { inherit lib; inherit (ours) secretOptions; }));
      default = { };
      example = { lab = { kind = "single-user"; user = "alice"; template.data.engine.type = "ThreadPoolEngine"; }; };
      description = "The endpoints, by their names.";
    };
  };

  config = mkIf (enabled != [ ]) {
    assertions = lib.concatMap (one: one.assertions) enabled;
    environment.systemPackages = [ cfg.package ];
    environment.etc = mkMerge (map (one: one.etc) enabled);
    security.pam.services = mkMerge (map (one: one.pam) enabled);
    systemd.packages = lib.concatMap (one: one.packages) enabled;
    systemd.services = mkMerge (map (one: { ${one.unitName} = one.service; }) enabled);
    systemd.tmpfiles.settings.globus-compute-endpoint = mkMerge (map (one: one.placed) enabled);
    users.users = mkMerge (map (one: one.users) enabled);
    users.groups = mkMerge (map (one: one.groups) enabled);

    # Audit logs, and those of a monitor. The first line of a new one has the last hash of the one before, so nothing is copied.
    services.logrotate.settings = mkIf (lib.any (one: one.many) enabled) {
      globus-compute-endpoint = {
        files = "/var/log/globus-compute-endpoint/*.log";
        frequency = "weekly";
        rotate = 104;
        dateext = true;
        missingok = true;
        create = false;
        delaycompress = true;
        compress = true;
      };
    };
  };
}
